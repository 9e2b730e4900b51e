"""ST-PPO: where it must be PPO, and what clipping removed against brute force."""

from dataclasses import replace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.data.records import Sequences  # noqa: E402
from surpass.errors import InputError  # noqa: E402
from surpass.methods.agents.stale_turns import s_ppo, st_ppo, turn_ppo  # noqa: E402
from surpass.objectives.descent import divided_by  # noqa: E402
from surpass.objectives.ratio import per_decision, per_turn  # noqa: E402
from surpass.objectives.trust import clip, clip_and_removed, ratio_loss  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.tasks.hop_search import HopSearch  # noqa: E402
from surpass.training.language_rollouts import RolloutStream, TaskPrompts  # noqa: E402
from surpass.training.modules import ModuleTrainer  # noqa: E402
from surpass.zoo.language import tiny_llama  # noqa: E402
from tests.methods.language_cases import assert_same, gradient  # noqa: E402

TASK = HopSearch(entities=6, relations=2, known=0.0, hops=(1, 2), turns=3)
SIZES = {"batch": 12, "horizon": 4, "turns": 3, "lr": 3e-2, "value_lr": 1e-2}


def trainer(form, own_tokens_only=False):
    """On one batch of traces, as if the policy had written them; rewards are mixed."""
    policy = LanguagePolicy(tiny_llama(TASK, width=16, layers=1, heads=2))
    stream = RolloutStream(policy, TaskPrompts(TASK, 0), form.source, seed=0)
    draw = torch.Generator().manual_seed(0)
    seq = TASK.traces(TASK.prompts(12, draw), draw, error=0.3)
    if own_tokens_only:  # each decision is a turn of its own
        seq.turn = torch.where(seq.mask > 0, seq.mask.long().cumsum(-1) - 1, -1)
    with torch.no_grad():
        seq.behavior_logp = policy.score(seq).logp
    batch = replace(stream.next(), sequences=seq, rows=[], exact=True)
    stream.next = lambda: batch
    return ModuleTrainer(form, policy, stream)


def plain(form):
    return replace(form, trust=clip(), gradient=None)


def once(form):
    return replace(form, epochs=1, minibatches=1)


@pytest.mark.parametrize("recipe", [st_ppo, s_ppo])
@pytest.mark.parametrize("mode", ["floor", "literal"])
def test_the_policy_that_collected_gets_the_gradient_of_ppo(recipe, mode):
    form = once(recipe(mode=mode, **SIZES))
    ours = gradient(trainer(form))
    assert_same(gradient(trainer(plain(form))), ours)
    # Values are 0 at the start, so a turn's decisions share their advantage: one ratio per turn or
    # one per token, at 1 it is the same gradient.
    assert_same(gradient(trainer(replace(plain(form), ratio=per_decision()))), ours)


def test_turns_of_one_token_make_it_token_ppo():
    ours = trainer(turn_ppo(epochs=2, minibatches=2, **SIZES), own_tokens_only=True)
    theirs = trainer(plain(s_ppo(epochs=2, minibatches=2, **SIZES)), own_tokens_only=True)
    for _ in range(2):
        one, two = ours.update(), theirs.update()
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-6)
    assert one["off_share"] > 0.1  # the policy has moved, and clips
    assert_same(*({n: p.detach() for n, p in made.policy.model.named_parameters()}
                  for made in (ours, theirs)))  # fmt: skip


def stale(seed=0):
    """Logits that have moved since they chose, [B, T, A] parameters."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 6, 4, generator=g, dtype=torch.float64).requires_grad_()
    action = torch.randint(4, (3, 6, 1), generator=g)
    mask = torch.ones(3, 6, dtype=torch.float64)
    mask[1, 2:4] = 0
    turn = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, -1, -1, 1, 1], [0, 1, 1, 2, 2, 2]])
    logp = logits.log_softmax(-1).gather(-1, action)[..., 0]
    old = logp.detach() + 0.9 * torch.randn(3, 6, generator=g, dtype=torch.float64)
    steps = Steps(logp=logp, anchor_logp=old, mask=mask, turn=turn,
                  advantage=torch.randn(3, 6, generator=g, dtype=torch.float64))  # fmt: skip
    return logits, steps, action


@pytest.mark.parametrize("ratio", [per_decision(), per_turn()])
def test_what_clipping_removed_by_brute_force(ratio):
    logits, steps, action = stale()
    terms = clip_and_removed()(steps.filled(log_ratio=ratio(steps)))
    (found,) = torch.autograd.grad((terms["removed"] * steps.mask).sum(), logits, retain_graph=True)
    p = logits.detach().softmax(-1)
    score = torch.nn.functional.one_hot(action[..., 0], 4) - p  # grad log pi of each token
    want, removed = torch.zeros_like(p), 0
    log_ratio = (steps.logp - steps.anchor_logp).detach()
    for i in range(3):
        for t in range(6):
            if steps.mask[i, t] == 0:
                continue
            alike = [t] if ratio == per_decision() else [
                s for s in range(6) if steps.turn[i, s] == steps.turn[i, t]]  # fmt: skip
            w = float(log_ratio[i, alike].mean().exp())
            a = float(steps.advantage[i, t])
            if (a >= 0 and w > 1.2) or (a < 0 and w < 0.8):
                removed += 1
                for s in alike:
                    want[i, s] -= w * a * score[i, s] / len(alike)
    assert removed > 2
    torch.testing.assert_close(found, want)
    # With it, the gradient is that of the surrogate without a clip.
    whole = ((terms["clip"] + terms["removed"]) * steps.mask).sum()
    free = ratio_loss()(steps.filled(log_ratio=ratio(steps))) * steps.mask
    (one,) = torch.autograd.grad(whole, logits, retain_graph=True)
    (two,) = torch.autograd.grad(free.sum(), logits)
    torch.testing.assert_close(one, two)


def test_a_step_is_divided_by_the_size_of_what_was_removed():
    form = s_ppo(epochs=3, minibatches=1, **SIZES)
    made = trainer(form)
    sizes, norms, rule = [], [], divided_by("removed", literal=True)

    def seen(d):
        removed = d.grad("removed")
        sizes.append(sum(float(g.square().sum()) for g in removed.values()) ** 0.5)
        before = d.grad("clip")
        after = rule.definition.function(
            {"seen": torch.zeros(10), "count": torch.zeros(())}, d, "removed", literal=True
        )[0]
        norms.append([sum(float(g.square().sum()) for g in x.values()) ** 0.5
                      for x in (before, after)])  # fmt: skip
        return after

    made.form = replace(form, gradient=seen)
    made.running.part = lambda tree, shown, at, inner=made.running.part: (
        tree(*shown) if at == "gradient" else inner(tree, shown, at))  # fmt: skip
    made.update()
    assert sizes[0] == 0 and norms[0][0] == pytest.approx(norms[0][1])
    assert sizes[2] > 0
    assert norms[2][1] == pytest.approx(norms[2][0] / max(sizes[2], 1e-3), rel=1e-4)


def test_a_batch_runs_with_turns_of_the_task():
    form = st_ppo(epochs=2, minibatches=2, **SIZES)
    policy = LanguagePolicy(tiny_llama(TASK, width=16, layers=1, heads=2))
    made = ModuleTrainer(
        form, policy, RolloutStream(policy, TaskPrompts(TASK, 0), form.source, seed=0)
    )
    notes = made.update()
    assert notes["answer_length"] >= 1 and "value_loss" in notes
    assert isinstance(made.stream.next().sequences, Sequences)


def test_an_unknown_mode_names_those_there_are():
    with pytest.raises(InputError, match=r"mode='flor'.*did you mean 'floor'"):
        st_ppo(mode="flor")
