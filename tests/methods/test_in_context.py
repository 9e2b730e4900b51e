"""ICPO: answers drawn behind solved examples and learned without them; values by hand."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.language import open_language  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.forms import PolicyGradient, rollouts  # noqa: E402
from surpass.methods.rlvr.in_context import icpo, shown_examples, steered_bonus  # noqa: E402
from surpass.objectives.advantage import group_standardized  # noqa: E402
from surpass.objectives.reduce import token_mean  # noqa: E402
from surpass.objectives.trust import dual_clip  # noqa: E402
from surpass.objectives.unified import shaped, unified  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.parts import run  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.tasks.language import ModSum  # noqa: E402
from surpass.training.experts import LoggedTraces, TaskTraces  # noqa: E402
from surpass.training.pieces import joined  # noqa: E402
from tests.methods.language_cases import (  # noqa: E402
    assert_same,
    fresh_trainer,
    gradient,
    rows,
    tiny,
)

SIZES = {"group": 3, "batch": 12, "horizon": 6}


def even(seq):
    return (seq.action.sum(-1) % 2 == 0).float()


def batch_of(**more):
    expert = TaskTraces(ModSum(), 5)
    trainer = fresh_trainer(icpo(**SIZES, **more), reward=even, expert=expert)
    return trainer, trainer.stream.next()


def test_steered_answers_are_drawn_behind_examples_and_stand_behind_the_plain_prompt():
    trainer, batch = batch_of(shots=2, least=-1.0)
    seq, stream = batch.sequences, trainer.stream
    assert batch.sources == ("own", "steered")
    assert seq.source.tolist() == [0] * 12 + [1] * 4 and stream.spent == 16
    assert seq.group[12:].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(seq.prompt[12:], seq.prompt[:12:3])
    assert torch.equal(seq.total, even(seq))
    examples = TaskTraces(ModSum(), 5).examples(8)
    policy = LanguagePolicy(tiny())
    for i in range(4):  # each answer's log-probs are those behind its own two examples
        ids = []
        for j in (2 * i, 2 * i + 1):
            ids += examples.prompt[j][examples.prompt_mask[j] > 0].tolist()
            ids += examples.action[j][examples.mask[j] > 0].tolist()
        row = seq[12 + i : 13 + i].clone()
        ids += row.prompt[0][row.prompt_mask[0] > 0].tolist()
        row.prompt, row.prompt_mask = torch.tensor([ids]), torch.ones(1, len(ids))
        want = policy.score(row).logp.detach()
        torch.testing.assert_close(row.behavior_logp, want, atol=1e-5, rtol=1e-4)
        row = seq[12 + i : 13 + i]
        assert (policy.score(row).logp - row.behavior_logp).abs().max() > 1e-4


def test_what_fails_is_dropped_and_charged():
    whole, kept = batch_of(least=-1.0)[1].sequences, batch_of()
    seq = kept[1].sequences
    right = whole[12:].total == 1
    assert 0 < int(right.sum()) < 4
    assert len(seq) == 12 + int(right.sum()) and kept[0].stream.spent == 16
    assert torch.equal(seq.action[12:], whole.action[12:][right])


def test_without_steered_answers_it_is_grpo_over_tokens():
    plain = PolicyGradient(group_standardized(), dual_clip(), reduce=token_mean(),
                           source=rollouts(12, 6, 3))  # fmt: skip
    want = gradient(fresh_trainer(plain, reward=even))
    none = fresh_trainer(icpo(least=9.0, beta=0.0, minibatches=1, **SIZES), reward=even,
                         expert=TaskTraces(ModSum(), 5))  # fmt: skip
    assert_same(want, gradient(none))


def test_the_bonus_is_paid_to_steered_answers_and_fades():
    _, batch = batch_of(least=-1.0)
    seq = batch.sequences
    bonus = icpo(bonus=0.5, over=10, **SIZES).signals[0]
    for step, weight in ((0, 0.5), (5, 0.25), (20, 0.0)):
        found, _ = run(bonus, ({}, seq), numbers={"weight": bonus.weight.at(step)})
        torch.testing.assert_close(found.total - seq.total, weight * seq.source.float())
    last = seq.mask.sum(-1).long() - 1
    extra = steered_bonus(1.0)({}, seq).reward - seq.reward
    assert torch.equal(extra.argmax(-1)[12:], last[12:]) and extra[:12].abs().sum() == 0


def test_the_shaped_ratio_to_the_behavior_by_hand():
    p, mu = torch.tensor([0.02, 0.3, 0.9, 0.5]), torch.tensor([0.5, 0.9, 0.3, 0.5])
    logp = p.log().requires_grad_()
    s = Steps(logp[None], torch.ones(1, 4), behavior_logp=mu.log()[None],
              advantage=torch.full((1, 4), 2.0))  # fmt: skip
    loss, _ = run(unified(denominator=shaped(0.01, to_behavior=True)), (s,))
    (g,) = torch.autograd.grad(loss.sum(), logp)
    u = (p / mu).requires_grad_()
    (slope,) = torch.autograd.grad((u / (u + 0.01)).sum(), u)
    torch.testing.assert_close(g, -2.0 * slope * p / mu)


def test_experts_draw_examples_and_carry_on():
    log = open_language([{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows()], None,
                        kind="demonstrations")  # fmt: skip
    for make in (lambda: TaskTraces(ModSum(), 1), lambda: LoggedTraces(log, 1)):
        first, second = make(), make()
        first.examples(3)
        second.load_state_dict(first.state_dict())
        a, b = first.examples(4), second.examples(4)
        assert torch.equal(a.action, b.action) and len(a) == 4
    shown = LoggedTraces(log, 1).examples(50)
    known = {
        tuple(a[: int(m.sum())].tolist()) for a, m in zip(shown.action, shown.mask, strict=True)
    }
    assert known <= {tuple(r["chosen"]) for r in rows()} and len(known) > 8


def test_examples_have_to_be_handed_in():
    with pytest.raises(InputError, match="give expert="):
        fresh_trainer(icpo(**SIZES), reward=even).stream.next()


def test_an_empty_share_joins():
    _, batch = batch_of(least=-1.0)
    seq = batch.sequences
    assert len(joined(seq[:3], seq[:0])) == 3
    assert shown_examples(2) == shown_examples(shots=2)
