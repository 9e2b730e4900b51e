"""Arms learned pull by pull: numpy's least squares as the oracle."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from surpass.critics.arms import Means, Trends
from surpass.errors import InputError

NOTHING = torch.zeros(1, 1)


def fed(model, rewards, arm=0, actions=2):
    learning = model.begin(1, 1, actions, 0)
    for r in rewards:
        learning.learn(SimpleNamespace(action=torch.tensor([arm]), reward=torch.tensor([r])))
    return learning.outlook(NOTHING)


def test_the_trend_is_the_least_squares_line_at_the_next_pull():
    y = np.random.default_rng(0).random(7)
    U = np.stack([np.arange(1, 8), np.ones(7)], 1)
    u = np.array([8.0, 1.0])
    seen = fed(Trends(change=None), y)
    assert float(seen.mean[0, 0]) == pytest.approx(u @ np.linalg.solve(U.T @ U, U.T @ y))
    assert float(seen.spread[0, 0]) == pytest.approx(np.sqrt(u @ np.linalg.solve(U.T @ U, u)))
    assert torch.isinf(seen.spread[0, 1])


def test_a_plateau_makes_the_trend_start_anew():
    rising = [0.01 * i for i in range(60)] + [0.6] * 20
    kept, forgot = fed(Trends(20, None), rising), fed(Trends(20, 0.2), rising)
    assert float(kept.mean[0, 0]) > 0.66
    assert float(forgot.mean[0, 0]) < 0.63
    assert float(fed(Trends(20, 0.2), [0.01 * i for i in range(80)]).mean[0, 0]) == pytest.approx(
        0.8
    )


def test_means_forget_by_window_or_discount():
    rewards = [1.0, 0.0, 0.0, 1.0]
    assert float(fed(Means(), rewards).mean[0, 0]) == pytest.approx(0.5)
    assert float(fed(Means(window=3), rewards).mean[0, 0]) == pytest.approx(1 / 3)
    weights = 0.5 ** np.array([3, 2, 1, 0])
    seen = fed(Means(discount=0.5), rewards)
    assert float(seen.mean[0, 0]) == pytest.approx((weights @ rewards) / weights.sum())
    assert float(seen.spread[0, 0]) == pytest.approx(weights.sum() ** -0.5)
    with pytest.raises(InputError, match="not by both"):
        Means(window=3, discount=0.9)
