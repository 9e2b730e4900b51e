"""The paired score of an episode: right on average, bounded, and still when nothing changes."""

from __future__ import annotations

import pytest
import torch

from surpass.objectives.episode_gain import episode_gains, span
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import random_mdp


def world(gamma: float, end: bool) -> tuple[TabularMDP, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mdp = random_mdp(5, 3, gamma=gamma, horizon=6, generator=generator)
    if end:  # a state that ends episodes, and rewards below zero
        stop = torch.zeros(5, dtype=torch.bool)
        stop[-1] = True
        d0 = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0], dtype=torch.float64)
        mdp = TabularMDP(mdp.P, mdp.r - 0.7, d0, gamma, 6, stop)
    mu = torch.rand(5, 3, generator=generator, dtype=torch.float64).softmax(-1)
    pi = (mu.log() + torch.rand(5, 3, generator=generator)).softmax(-1)
    return mdp, mu, pi


def scores(mdp, mu, pi, n, value, room=1.0, seed=0):
    log = mdp.rollout(mu, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state = log.extras["state"]
    ratio = (pi / mu)[state, log.action]
    ratio = torch.where(log.mask > 0, ratio, 1.0)
    top = (pi / mu).amax(-1)[state]
    low, high = float(mdp.r.min()), float(mdp.r.max())
    found = episode_gains(
        ratio,
        top,
        log.reward,
        log.mask,
        value(state),
        limits=(low, high),
        gamma=mdp.gamma,
        room=room,
    )
    return (*found, log)


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize(("gamma", "worth"), [(1.0, 0.0), (0.9, 2.0), (1.0, 50.0)])
def test_the_mean_is_the_exact_gain_whatever_the_baseline(end, gamma, worth):
    mdp, mu, pi = world(gamma, end)
    truth = float(mdp.evaluate(pi).value - mdp.evaluate(mu).value)
    guess = worth * torch.linspace(0, 1, 5, dtype=torch.float64)
    phi, floor, _ = scores(mdp, mu, pi, 60_000, lambda s: guess[s], room=0.5)
    error = float(phi.std()) / len(phi) ** 0.5
    assert float(phi.mean()) == pytest.approx(truth, abs=4 * error)
    assert float(phi.min()) >= floor


def test_the_lower_limit_is_the_computed_one_and_baselines_respect_it():
    mdp, mu, _ = world(1.0, False)
    greedy = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3).double()
    huge = lambda s: torch.full(s.shape, 1e6, dtype=torch.float64)  # noqa: E731
    for room in (0.0, 0.3, 2.0):
        phi, floor, _ = scores(mdp, mu, greedy, 5_000, huge, room)
        width = max(float(mdp.r.max()), 0.0) - min(float(mdp.r.min()), 0.0)
        assert floor == pytest.approx(-(room + 1) * width * 6)
        assert float(phi.min()) >= floor - 1e-9


def test_the_logging_policy_itself_gains_exactly_nothing():
    mdp, mu, _ = world(0.9, True)
    phi, _, _ = scores(mdp, mu, mu, 200, lambda s: s.double())
    assert phi.abs().max() < 1e-12


def test_one_step_and_no_baseline_is_importance_sampling_by_hand():
    one = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    reward, mask = torch.tensor([[3.0], [1.0]]), torch.ones(2, 1)
    phi, floor = episode_gains(one, 2 * mask, reward, mask, 0 * mask, limits=(0.0, 4.0), room=0.0)
    assert phi.tolist() == [3.0, -0.5] and floor == -4.0  # (2 - 1) 3 and (0.5 - 1) 1


def test_a_good_baseline_takes_noise_away():
    mdp, mu, pi = world(1.0, False)
    v = mdp.evaluate(mu).v[0]
    with_ = scores(mdp, mu, pi, 20_000, lambda s: v[s] * torch.linspace(1, 1 / 6, 6))[0]
    without = scores(mdp, mu, pi, 20_000, lambda s: torch.zeros(s.shape))[0]
    assert with_.std() < 0.8 * without.std()
    assert span(0.5, 3) == 1.75 and span(1.0, 4) == 4.0
