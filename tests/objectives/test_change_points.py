"""The rank test of changes: pairs counted by hand, and its rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest

from surpass.objectives.change_points import alarm_thresholds, begun, largest_split


def test_the_statistic_counts_pairs():
    x = np.array([[3.0, 5.0, 4.0, 1.0, 2.0, 2.0]])
    scores = []
    for k in range(1, 6):
        pairs = [(a > b) + 0.5 * (a == b) for a in x[0, :k] for b in x[0, k:]]
        n = k * (6 - k)
        scores.append((sum(pairs) - n / 2) / np.sqrt(n * 7 / 12))
    value, split = largest_split(x)
    assert float(value[0]) == pytest.approx(max(scores)) and split[0] == 3
    assert float(largest_split(-x)[0][0]) < float(value[0])
    assert float(largest_split(-x, drops=False)[0][0]) == pytest.approx(float(value[0]))


def test_false_alarms_come_at_the_chosen_rate():
    limits = np.array(alarm_thresholds(50, warmup=10, last=30, streams=2000))
    assert np.isinf(limits[:10]).all()
    x = np.random.default_rng(2).normal(size=(2000, 30))
    alive = np.ones(2000, bool)
    for t in range(11, 31):
        alive &= largest_split(x[:, :t])[0] <= limits[t - 1]
    assert alive.mean() == pytest.approx((1 - 1 / 50) ** 20, abs=0.04)


def test_a_step_is_dated_by_least_squares():
    x = np.array([1.0, 1.2, 0.9, 1.1, 0.2, 0.1])
    fits = [((x[:k] - x[:k].mean()) ** 2).sum() + ((x[k:] - x[k:].mean()) ** 2).sum()
            for k in range(1, 6)]  # fmt: skip
    assert begun(x) == int(np.argmin(fits)) + 1 == 4
