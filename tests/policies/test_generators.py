"""Generators whose way to a sample is a record of decisions: noisy flows and masked diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import PolicyGradient, Spaces, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.gaussian_decisions import center, normalized, per_stride, spread
from surpass.objectives.trust import clip
from surpass.policies.flow import flow
from surpass.policies.gaussian import gaussian
from surpass.policies.masked_diffusion import masked_diffusion
from surpass.policies.noisy_flow import noisy, noisy_flow
from surpass.policies.stochastic import score
from surpass.tasks.catalog import ControlTask
from surpass.tasks.motifs import Motifs
from surpass.tasks.protocol import Step
from surpass.training.engine import Engine
from surpass.training.on_policy import lowered
from surpass.training.streams import open_stream

GENERATED = Spaces(3, 2)
WRITTEN = Spaces(1, n_actions=3, extras={"agents": 4})


@dataclass(frozen=True)
class Asked:
    """A one-hot question, and an answer of 2 numbers that pays their sum; for some steps."""

    horizon: int = 1
    noise_dim: int = 0
    spaces = Spaces(3, 2, low=(-9.0, -9.0), high=(9.0, 9.0))

    def reset(self, n, generator=None):
        obs = torch.eye(3)[torch.randint(3, (n,), generator=generator)]
        return {"obs": obs, "t": torch.zeros(n)}, obs

    def step(self, state, action, noise=None):
        t = state["t"] + 1
        over = t >= self.horizon
        state = {"obs": state["obs"], "t": t}
        return Step(state, state["obs"], action.sum(-1), over, torch.zeros_like(over))


def opened(form, simulator, **roles):
    task = ControlTask("asked", "", simulator)
    learner = lowered(form, roles)
    stream = open_stream(learner.source, {"task": task, **roles}, task.spaces)
    engine = Engine(learner, stream, task.spaces, roles={"task": task, **roles}, compile=False)
    stream.bind(engine, {"task": task, **roles})
    return engine, stream


def small(steps=4, seed=0):
    torch.manual_seed(seed)
    return noisy_flow(steps, shift=3.0, hidden=8, blocks=1)(GENERATED)


def guard(**more):
    return PolicyGradient(
        group_standardized(), per_stride() * clip(1e-3, 1e-3), ratio=normalized(),
        source=rollouts(6, 1, 3, paths=True), **more,
    )  # fmt: skip


def test_a_path_is_scored_as_it_was_drawn():
    policy = small()
    obs = torch.eye(3)
    end, path = policy.walk(obs)
    torch.testing.assert_close(end, path["action"][:, -1])
    torch.testing.assert_close(path["obs"][:, 1:, 3:5], path["action"][:, :-1])
    logp, found = score(policy, path["obs"], path["action"], (center, spread))
    torch.testing.assert_close(logp, path["behavior_logp"])
    want = torch.distributions.Normal(found["center"], found["spread"])
    torch.testing.assert_close(logp, want.log_prob(path["action"]).mean(-1))


def test_the_spread_of_a_step_is_the_schedules():
    policy = small()
    _, path = policy.walk(torch.eye(3))
    _, found = score(policy, path["obs"], path["action"], (spread,))
    steps = policy.levels[:-1] - policy.levels[1:]
    want = (policy.sigma * steps.sqrt())[None, :, None].expand(3, 4, 2)
    torch.testing.assert_close(found["spread"], want)


@pytest.mark.parametrize("horizon", [1, 2])
def test_an_answer_is_paid_once_at_the_end_of_its_path(horizon):
    form = guard()
    form = PolicyGradient(form.advantage, form.trust, ratio=form.ratio,
                          source=rollouts(6, horizon, 3, paths=True))  # fmt: skip
    engine, stream = opened(form, Asked(horizon), policy=small())
    stream.before(1)
    rows = stream.sample(stream.tables)
    assert rows.mask.shape == (6, 4 * horizon)
    ends = 9.0 * rows.action[:, 3::4].clamp(-1, 1).sum((-1, -2))
    question = rows.obs[:, 0, :3]
    for g in range(2):  # who shares a question does not share the noise
        mine = rows.group == g
        assert len(question[mine].unique(dim=0)) == 1
        assert len(rows.obs[mine][:, 0, 3:].unique(dim=0)) == 3
        reward = ends[mine]
        want = (reward - reward.mean()) / (reward.std() + 1e-6)
        got = rows.extras["advantage"][mine]
        torch.testing.assert_close(got, want[:, None].expand_as(got), rtol=1e-3, atol=1e-4)


def test_the_gradient_is_that_of_the_means_times_noise_over_the_step():
    """At the anchor the gradient of A r / |dt| is A mean(z grad mu) / |dt| at every step."""
    engine, stream = opened(guard(), Asked(), policy=small())
    stream.before(1)
    rows = stream.sample(stream.tables)
    policy = engine.bank["policy"]
    parameters = [p.requires_grad_(True) for p in policy.net.parameters()]
    from surpass.parts import run

    loss = run(engine.steps[0].loss, (engine.bank, rows))[0]
    got = torch.autograd.grad(loss, parameters)
    drawn = policy.drawn(rows.obs.flatten(0, 1), rows.action.flatten(0, 1))
    z = ((drawn.action - drawn.middle) / drawn.deviation).detach()
    a = rows.extras["advantage"].flatten() / drawn.step
    want = torch.autograd.grad(-(a * (z * drawn.middle).mean(-1)).mean(), parameters)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-6)


def test_another_sampler_of_a_flow_keeps_its_velocity():
    torch.manual_seed(0)
    plain = flow(8, hidden=8, blocks=1)(GENERATED)
    other = noisy(plain, steps=5, draws=8)
    noise = torch.randn(3, 2)
    torch.testing.assert_close(other.decode(torch.eye(3), noise).clamp(-1, 1),
                               plain.decode(torch.eye(3), noise))  # fmt: skip
    assert noisy(other, steps=3, constant=True, noise=0.2).sigma.tolist() == pytest.approx(
        [0.2] * 3
    )
    with pytest.raises(InputError, match="is no flow"):
        noisy(gaussian((8,))(GENERATED))
    with pytest.raises(InputError, match="at least 2 steps"):
        noisy(plain, steps=1)


def test_what_has_no_path_is_refused_in_one_line():
    engine, stream = opened(guard(), Asked())  # a Gaussian, since none was handed in
    with pytest.raises(InputError, match="has no path of its own: hand in policy="):
        stream.before(1)
    form = guard()
    whole = PolicyGradient(form.advantage, form.trust,
                           source=rollouts(6, 1, paths=True, continuing=True))  # fmt: skip
    with pytest.raises(InputError, match="paths are whole"):
        opened(whole, Asked(), policy=small())


# ------------------------------------------------------------------------------ masked diffusion


def writer(seed=0, **how):
    torch.manual_seed(seed)
    return masked_diffusion(8, 1, **how)(WRITTEN)


def blind(**how):
    """A model whose letters depend on nothing: its probabilities are known, [4, 3]."""
    policy = writer(**how)
    with torch.no_grad():
        policy.first.weight.zero_()
        policy.last.bias.copy_(1.5 * torch.randn(12))
    return policy, policy.letter_logp(torch.ones(1, 1), torch.zeros(1, 4, dtype=torch.long))[0]


def test_scores_of_neighbors_come_from_the_place_left_out():
    policy, x = writer(leave_out=True), torch.tensor([[0, 2, 1, 1], [2, 2, 0, 1]])
    one = torch.ones(2, 1)
    table = policy.table(one, x)
    for n in range(2):
        for i in range(4):
            without = x[n].clone()
            without[i] = 3
            logp = policy.letter_logp(one[:1], without[None])[0, i]
            torch.testing.assert_close(table[n, i], logp - logp[x[n, i]])
    logp, _ = policy.scored(one[:, None].expand(-1, 4, -1), x, ())
    torch.testing.assert_close(logp, table.softmax(-1).gather(-1, x[..., None])[..., 0].log())


def test_what_it_writes_has_the_letters_probabilities():
    policy, logp = blind()
    x, _ = policy.sample(torch.ones(20_000, 1))
    found = torch.stack([(x == v).float().mean(0) for v in range(3)], -1)
    torch.testing.assert_close(found, logp.exp(), rtol=0, atol=0.015)
    losses = policy.imitation(torch.ones(20_000, 1), x[:1].expand(20_000, -1)).detach()
    want = -logp.detach().gather(-1, x[0][:, None]).sum()
    assert float(losses.mean()) == pytest.approx(float(want), rel=0.05)


def test_the_steps_of_a_path_reveal_all_letters_once():
    policy, logp = blind(path=True, steps=3)
    x, path = policy.walk(torch.ones(50, 1))
    assert int(x.max()) < 3 and path["action"].shape == (50, 3, 4)
    total = path["behavior_logp"].sum(-1)
    torch.testing.assert_close(total, logp.expand(50, 4, 3).gather(-1, x[..., None]).sum((-1, -2)))
    again, _ = score(policy, path["obs"], path["action"])
    torch.testing.assert_close(again, path["behavior_logp"])


def test_a_writer_needs_letters():
    with pytest.raises(InputError, match="several discrete letters"):
        masked_diffusion(8)(Spaces(1, n_actions=3))
    task = Motifs(length=5)
    x = torch.tensor([[2, 0, 2, 0, 1], [0, 0, 0, 0, 0]])
    assert task.reward(x).tolist() == [2.0, 0.0]
    chances = task.transitions().exp()
    want = -(0.25 * chances[2, 0] * chances[0, 2] * chances[2, 0] * chances[0, 1]).log()
    torch.testing.assert_close(task.surprise(x)[0], want)
