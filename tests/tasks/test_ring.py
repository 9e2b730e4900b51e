"""RING: what it pays, by hand, and what its log says of it."""

import math

import pytest
import torch

from surpass.tasks.protocol import Batched
from surpass.tasks.ring import Ring


def test_the_reward_is_the_cosine_at_the_radius_and_nothing_in_the_middle():
    ring = Ring()
    context = torch.tensor([[0.0], [0.5], [1.0], [0.0]])
    action = torch.tensor([[0.8, 0.0], [0.8, 0.0], [0.9, 0.0], [0.2, 0.0]])
    assert ring.worth(context, action).tolist() == pytest.approx([1, 0, -1, 0.25], abs=1e-6)


def test_support_ends_at_three_deviations():
    ring = Ring(modes=4, radius=0.5, std=0.1)
    at = torch.tensor([[0.5, 0.0], [0.5, 0.29], [0.5, 0.31], [0.0, 0.0]])
    assert ring.supported(at).tolist() == [1, 1, 0, 0]


def test_the_log_and_the_environment_pay_alike():
    ring = Ring(noise=0.2)
    log = ring.log(20_000, seed=1)
    left = log.reward - ring.worth(log.obs, log.action)
    assert float(left.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(left.std()) == pytest.approx(0.2, abs=0.01)
    inside = 1 - math.exp(-4.5)  # of a two-dimensional Gaussian within three deviations
    assert float(ring.supported(log.action).mean()) == pytest.approx(inside, abs=0.005)
    env = Batched(ring, 5_000, seed=2)
    obs = env.reset(2)
    action = ring.centers()[:1].expand(5_000, 2)
    after = env.step(action)
    assert bool(after.terminated.all()) and not torch.equal(after.obs, obs)
    left = after.reward - ring.worth(obs, action)
    assert float(left.std()) == pytest.approx(0.2, abs=0.01)
