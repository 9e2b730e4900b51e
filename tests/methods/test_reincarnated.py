"""ReMix: the shifted clip by hand, the convex leash, stages that begin anew and resume exactly."""

import math
from contextlib import nullcontext

import pytest
import torch

transformers = pytest.importorskip("transformers")

from surpass.errors import InputError  # noqa: E402
from surpass.forms import Repeat, Stage, Stages, copy  # noqa: E402
from surpass.methods.rlvr.policy_gradients import grpo  # noqa: E402
from surpass.methods.rlvr.reincarnated import remix  # noqa: E402
from surpass.objectives.divergence import k3, k3_to  # noqa: E402
from surpass.objectives.trust import clip, shifted_clip  # noqa: E402
from surpass.objectives.views import Steps  # noqa: E402
from surpass.parts import from_json, linear, to_json  # noqa: E402
from surpass.policies.language import LanguagePolicy  # noqa: E402
from surpass.tasks.language import ModSum  # noqa: E402
from surpass.training.module_run import (  # noqa: E402
    language_legs,
    runs_on_modules,
    train_language,
)
from surpass.training.references import Twin  # noqa: E402
from tests.methods.language_cases import fresh_trainer, tiny  # noqa: E402

SIZES = {"group": 4, "batch": 16, "horizon": 6, "lr": 1e-3}


def steps(ratio, center, advantage):
    """Decisions of a policy at pi / mu = ratio, an anchor at pi_k / mu = center, mu = 0.1."""
    mu = torch.full((1, len(ratio)), 0.1).log()
    logp = (mu + torch.tensor([ratio]).log()).requires_grad_()
    anchor = mu + torch.tensor([center]).log()
    return logp, Steps(logp, torch.ones_like(mu), anchor_logp=anchor, behavior_logp=mu,
                       log_ratio=logp - mu, advantage=torch.tensor([advantage]))  # fmt: skip


def test_the_clip_is_centered_on_the_anchor_by_hand():
    ratio, center = [2.0, 2.0, 2.3, 1.7, 1.0], [2.0, 1.5, 2.0, 2.0, 1.0]
    logp, s = steps(ratio, center, [1.0, 1.0, -1.0, -1.0, 1.0])
    loss = shifted_clip(0.2)(s)
    # the second is held at 1.7; the third, A < 0 and r above, keeps r; the fourth is held at 1.8
    torch.testing.assert_close(loss, torch.tensor([[-2.0, -1.7, 2.3, 1.8, -1.0]]))
    (g,) = torch.autograd.grad(loss.sum(), logp)
    torch.testing.assert_close(g, torch.tensor([[-2.0, 0.0, 2.3, 0.0, -1.0]]))


def test_on_fresh_data_it_is_ppos():
    ratio = [0.5, 0.85, 1.0, 1.15, 1.5]
    for a in (1.0, -1.0):
        logp, s = steps(ratio, [1.0] * 5, [a] * 5)
        torch.testing.assert_close(shifted_clip()(s), clip()(s))


def test_k3_to_another_net():
    logp, s = steps([1.0, 2.0], [1.0, 1.0], [0.0, 0.0])
    s = s.filled(ref_logp=s.behavior_logp, extras={"previous_logp": s.behavior_logp})
    torch.testing.assert_close(k3_to()(s), k3()(s))
    assert float(k3_to()(s)[0, 1].detach()) == pytest.approx(0.5 - 1 + math.log(2))


def test_the_leash_moves_in_stairs_after_a_while():
    lam = linear(1.0, 0.5, steps=50, after=50, every=10)
    want = {0: 1.0, 50: 1.0, 51: 0.9, 60: 0.9, 61: 0.8, 95: 0.5, 100: 0.5, 400: 0.5}
    for t, value in want.items():
        assert lam.at(t) == pytest.approx(value)
        assert lam.at(t) == pytest.approx(max(1 - 0.1 * math.ceil(max(t - 50, 0) / 10), 0.5))
    assert from_json(to_json(lam)) == lam and "every=10" in repr(lam)
    assert linear(0.0, 1.0, steps=4).at(1) == 0.25


def test_the_policy_before_is_one_batch_behind():
    form = remix(epochs=2, **SIZES).stages[0].do
    trainer = fresh_trainer(form)
    twin, seen = trainer.twins["previous"], []
    for _ in range(4):
        now = {k: v.clone() for k, v in trainer.policy.model.state_dict().items()}
        seen.append(now)
        held = twin.shown.model.state_dict()
        before = seen[max(len(seen) - 2, 0)]
        assert all(torch.equal(held[k], before[k]) for k in now)
        trainer.update()
    assert any(not torch.equal(seen[1][k], seen[2][k]) for k in now)


def test_the_window_is_mixed_in_and_trust_knows_who_wrote_what():
    trainer = fresh_trainer(remix(replay=0.5, oldest=2, **SIZES).stages[0].do)
    ages = []
    for _ in range(4):
        batch = trainer.stream.next()
        trainer.stream.next = lambda b=batch: b
        trainer.update()
        ages.append(sorted({int(a) for a in batch.sequences.age}))
        del trainer.stream.next
    assert ages[0] == [0] and max(ages[-1]) in (1, 2) and len(ages[-1]) > 1
    assert not batch.exact  # its anchor is computed, and differs from what wrote the old answers


# ----------------------------------------------------------------------------------- stages


class Even(ModSum):
    """Rewards that a random model earns now and then."""

    def verify(self, prompt, response, mask=None):
        return (response.sum(-1) % 2 == 0).float()


def run(form, count, start=None, seed=5, **more):
    """Train a tiny model; gives its weights, and the numbers of the updates."""
    marks = []
    policy = LanguagePolicy(tiny())
    if start is not None:
        policy.model.load_state_dict(start)
    train_language(form, model=policy, task=Even(), steps=count, seed=seed,
                   callback=lambda step, notes, p: marks.append(step), **more)  # fmt: skip
    return policy.model.state_dict(), marks


def test_lengths_of_stages():
    a, b = grpo(**SIZES), grpo(beta=0.0, **SIZES)
    form = Stages((Stage(a, 5), Stage(b)))
    assert [(n, c) for _, n, c in language_legs(form, 8)] == [(0, 5), (5, 3)]
    assert [(n, c) for _, n, c in language_legs(form, 4)] == [(0, 4)]
    assert language_legs(a, 7) == [(a, 0, 7)] and language_legs(form, 0) == [(b, 0, 0)]
    assert runs_on_modules(form, {"model": 1}) and not runs_on_modules(form, {})
    with pytest.raises(InputError, match="stages of language models"):
        language_legs(Stages((Repeat(2, (Stage(a, 1),)),)), 4)


def test_two_stages_are_two_runs():
    """The second begins at the first one's policy, which is its base, with an empty window."""
    form = remix(switch=2, beta=0.5, **SIZES)
    both, marks = run(form, 4)
    assert marks == [1, 2, 3, 4]
    first, _ = run(form, 2)
    second, _ = run(form.stages[1].do, 2, start=first, seed=5 + 104_729)
    assert any(not torch.equal(both[k], first[k]) for k in both)
    for name, value in both.items():
        torch.testing.assert_close(second[name], value)


@pytest.mark.parametrize("stop", [1, 3])
def test_stages_resume_exactly(tmp_path, stop):
    form = remix(switch=2, **SIZES)
    whole, _ = run(form, 4)

    def interrupt(step, notes, policy):
        if step == stop:
            raise KeyboardInterrupt

    policy = LanguagePolicy(tiny())
    with pytest.raises(KeyboardInterrupt):
        train_language(form, model=policy, task=Even(), steps=4, seed=5, out=tmp_path,
                       callback=interrupt)  # fmt: skip
    carried, marks = run(form, 4, out=tmp_path, resume=True)
    assert marks == list(range(stop + 1, 5))
    for name, value in whole.items():
        torch.testing.assert_close(carried[name], value)


def test_a_later_stage_does_not_take_the_base_of_adapters_for_its_start():
    policy = LanguagePolicy(tiny())
    policy.model.disable_adapter = nullcontext  # as an adapted model has it
    assert Twin(policy, copy("policy")).by_adapters
    policy.begun = True
    twin = Twin(policy, copy("policy"))
    assert not twin.by_adapters and twin.shown is not None
