"""LINE-SPREAD: rewards telescope to the spacing, and its expert reaches it."""

import math

import pytest
import torch

from surpass.tasks.protocol import Batched
from surpass.tasks.spread import LineSpread, spread_log


def test_returns_count_the_gain_of_the_smallest_gap():
    log = spread_log(3, episodes=4, epsilon=0.5, seed=0)
    first, last = log.obs[::10], log.next_obs[9::10]
    gap = lambda obs: (10.0 * obs[..., 0]).sort(-1).values.diff(dim=-1).amin(-1)  # noqa: E731
    returns = log.reward.reshape(4, 10).sum(1)
    torch.testing.assert_close(returns, 10 * (gap(last) - gap(first)) / 5.0, rtol=1e-4, atol=1e-4)


def test_the_last_move_ends_the_episode_and_cuts_nothing():
    log = spread_log(3, episodes=2, seed=0)
    assert log.terminated.tolist() == ([False] * 9 + [True]) * 2
    assert not log.truncated.any()


def test_the_expert_spreads_evenly():
    log = spread_log(5, episodes=20, epsilon=0.0)
    places = 10.0 * log.next_obs[9::10, :, 0]
    torch.testing.assert_close(places, torch.linspace(0, 10, 5).expand(20, 5), rtol=0, atol=0.01)
    assert float(log.reward.reshape(20, 10).sum(1).mean()) == pytest.approx(10, abs=1.5)


def test_it_runs_in_batches_with_an_action_per_agent():
    env = Batched(LineSpread(3), 4, 0)
    obs = env.reset(0)
    assert obs.shape == (4, 12)
    x = obs.reshape(4, 3, 4)
    torch.testing.assert_close(x[:, :-1, 2], x[:, 1:, 1])  # one's right gap is the next one's left
    after = env.step(torch.full((4, 3), 9))
    torch.testing.assert_close(after.final_obs.reshape(4, 3, 4)[..., 0], x[..., 0] + 0.1)


def test_a_joint_action_is_drawn_evenly_for_every_agent():
    spaces = LineSpread(3).spaces
    drawn = spaces.sample(5_000, torch.Generator().manual_seed(0))
    chance = torch.stack([(drawn == a).float().mean(0) for a in range(11)])
    torch.testing.assert_close(chance, torch.full((11, 3), 1 / 11), rtol=0, atol=0.02)
    assert spaces.uniform_logp() == pytest.approx(-3 * math.log(11))
