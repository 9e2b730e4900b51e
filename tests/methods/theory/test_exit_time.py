"""Control until an exit: the closed form, the gradient through tau, and a contract's accounts."""

from __future__ import annotations

import math

import pytest
import torch

import surpass as sp
from surpass.tasks.exit_time import ExitControl, ShareRepurchase


def cost(env: ExitControl, push, n: int = 20_000, seed: int = 0) -> float:
    """The mean cost of a feedback."""
    g = torch.Generator().manual_seed(seed)
    state, obs = env.reset(n, g)
    total, alive = torch.zeros(n), torch.ones(n)
    for _ in range(env.horizon):
        step = env.step(state, push(obs), torch.rand(n, 2, generator=g))
        total -= alive * step.reward
        alive = alive * (~step.terminated).float()
        state, obs = step.state, step.obs
        if not alive.any():
            break
    return float(total.mean())


def test_the_closed_form_is_what_simulation_gives_with_a_bridge_only():
    fine = ExitControl(dt=0.01, horizon=800)
    assert fine.best == pytest.approx(1.325, abs=1e-3)
    assert cost(fine, fine.optimum, 8000) == pytest.approx(fine.best, abs=0.06)
    assert cost(fine, torch.zeros_like, 8000) == pytest.approx(2.0, abs=0.08)  # toll E[tau] = toll
    blind = ExitControl(dt=0.02, bridge=False)
    assert cost(blind, blind.optimum, 8000) > 1.1 * fine.best


def test_the_score_sees_how_the_exit_moves():
    """d/dk of the cost of the push k x at k = 0, against finite differences; through the path with
    tau frozen it would be 0, as the push costs nothing there."""
    env, n = ExitControl(dt=0.02), 40_000
    g = torch.Generator().manual_seed(0)
    state, obs = env.reset(n, g)
    sigma, score, total, alive = 1.0, torch.zeros(n), torch.zeros(n), torch.ones(n)
    for _ in range(env.horizon):
        noise = sigma * torch.randn(n, 1, generator=g)
        step = env.step(state, noise, torch.rand(n, 2, generator=g))
        score += alive * (obs * noise)[:, 0] / sigma**2  # grad_k log N(a; k x, sigma^2) at k = 0
        total -= alive * step.reward
        alive = alive * (~step.terminated).float()
        state, obs = step.state, step.obs
        if not alive.any():
            break
    gradient = float((score * (total - total.mean())).mean())
    h = 0.25
    finite = (cost(env, lambda x: h * x, seed=1) - cost(env, lambda x: -h * x, seed=1)) / (2 * h)
    assert finite < -0.2
    assert gradient == pytest.approx(finite, rel=0.35)


@pytest.mark.parametrize("recipe", ["exit-time-pg", "exit-time-pg:actor-critic"])
def test_it_learns_to_push_outward(recipe):
    env = ExitControl(dt=0.04, horizon=100)
    trained = sp.train(recipe, task=env, steps=50 * 25_600, seed=0, compile=False, lr=2e-2,
                       log_std=-1.2, paths=256, horizon=100, hidden=(16,))  # fmt: skip
    x = torch.tensor([[-0.6], [0.6]])
    left, right = (float(a) for a in torch.as_tensor(trained.predict(x)).flatten())
    assert left < -0.4 and right > 0.4

    def push(obs):
        return torch.as_tensor(trained.predict(obs)).reshape(-1, 1)

    assert cost(env, push, 5000) < 0.9 * cost(env, torch.zeros_like, 5000)


def bought(env: ShareRepurchase, act, n: int = 2000, seed: int = 0) -> torch.Tensor:
    """The gain of each of n contracts."""
    g = torch.Generator().manual_seed(seed)
    state, obs = env.reset(n, g)
    gain, alive = torch.zeros(n), torch.ones(n)
    for _ in range(env.days):
        step = env.step(state, act(obs), torch.rand(n, 1, generator=g))
        gain += alive * step.reward
        alive = alive * (~step.terminated).float()
        state, obs = step.state, step.obs
    assert not alive.any()
    return gain


def test_the_even_pace_gains_nothing_on_any_path_and_fees_are_what_they_say():
    env = ShareRepurchase()

    def even(obs):
        return torch.full((len(obs), 1), env.even)

    assert float(bought(env, even).abs().max()) < 1e-3
    flat = ShareRepurchase(volatility=0.0, fee=0.002, impact=0.01)
    # each of 60 days buys 1/60 at 1.002, and impact 0.01 on a pace of 1 a day's even pace
    assert float(bought(flat, even, 3).mean()) == pytest.approx(-100 * (0.002 + 0.01), rel=1e-4)
    late = ShareRepurchase(volatility=0.0, penalty=0.02)
    nothing = bought(late, lambda obs: -torch.ones(len(obs), 1), 3)
    assert float(nothing.mean()) == pytest.approx(-2.0, rel=1e-4)


def test_buying_below_the_mean_and_ending_above_it_gains():
    env = ShareRepurchase()

    def patient(obs):
        return torch.where(obs[:, 1:2] < 0, 1.0, -1.0)

    gain = bought(env, patient)
    assert float(gain.mean()) > 3 * float(gain.std()) / math.sqrt(len(gain))
