"""IGPO: where no turn can teach anything it is GRPO; where outcomes are equal it still learns."""

from dataclasses import replace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.errors import InputError  # noqa: E402
from surpass.methods.agents.information_gain import igpo  # noqa: E402
from surpass.objectives.advantage import group_standardized  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.registry import build  # noqa: E402
from surpass.tasks.hop_search import HopSearch  # noqa: E402
from surpass.training.language_rollouts import (  # noqa: E402
    RolloutStream,
    TaskPrompts,
    with_answers,
)
from surpass.training.modules import ModuleTrainer  # noqa: E402
from surpass.zoo.language import tiny_llama  # noqa: E402
from tests.methods.language_cases import assert_same, gradient  # noqa: E402

TASK = HopSearch(entities=6, relations=2, known=0.0, hops=(1, 2), turns=3)
SIZES = {"batch": 12, "group": 4, "horizon": 4, "turns": 3, "beta": 0.0}


def trainer(form, deaf=False, fail=False):
    """On one batch of traces, four to a question, as if the policy had written them."""
    model = tiny_llama(TASK, width=16, layers=1, heads=2)
    if deaf:  # the next token depends on the last one only: beliefs never change
        model.model.layers[0].self_attn.o_proj.weight.data.zero_()
    policy = LanguagePolicy(model)
    stream = RolloutStream(policy, TaskPrompts(TASK, 0), form.source, seed=0)
    draw = torch.Generator().manual_seed(0)
    asked = TASK.prompts(3, draw).repeated(4)
    seq = TASK.traces(asked, draw, error=0.3)
    seq.group = torch.arange(3).repeat_interleave(4)
    seq.reward = seq.reward * (0 if fail else 1)
    tokens, own = TASK.wrapped_answer(asked.tokens)
    seq = with_answers(seq, list(zip(tokens.tolist(), own.tolist(), strict=True)))
    batch = replace(stream.next(), sequences=seq, rows=[], exact=True)
    stream.next = lambda: batch
    return ModuleTrainer(form, policy, stream)


def outcomes(form):
    return replace(form, advantage=group_standardized(), signals=())


def test_where_no_turn_changes_the_belief_it_is_grpo():
    form = igpo(**SIZES)
    assert_same(gradient(trainer(outcomes(form), deaf=True)), gradient(trainer(form, deaf=True)))


def test_groups_that_all_fail_still_teach():
    form = igpo(**SIZES)
    silent = gradient(trainer(outcomes(form), fail=True))
    assert max(float(g.abs().max()) for g in silent.values()) == 0
    ours = gradient(trainer(form, fail=True))
    assert max(float(g.abs().max()) for g in ours.values()) > 1e-3
    both = gradient(trainer(form))  # gains are standardized apart: outcomes add to them
    theirs = gradient(trainer(outcomes(form)))
    assert_same(both, {n: ours[n] + theirs[n] for n in both})


def test_a_misspelled_option_is_named():
    with pytest.raises(InputError, match=r"has no 'believe'.*belief"):
        build("igpo-info-gain", believe="prob")
