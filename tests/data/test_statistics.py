"""Numbers of a log, against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from surpass.data.episodes import from_columns
from surpass.data.statistics import (
    action_spread,
    episode_returns,
    saco,
    statistics,
    trajectory_quality,
    unique_pairs,
)
from surpass.errors import InputError
from surpass.tasks.point import point_log


def small(obs: list[float], action: list[int]) -> object:
    n = len(obs)
    end = np.zeros(n, dtype=bool)
    end[[n // 2 - 1, n - 1]] = True
    return from_columns(
        {"obs": np.array(obs)[:, None], "next_obs": np.array(obs)[:, None],
         "action": np.array(action), "reward": np.arange(n, dtype=float),
         "terminated": end & (np.arange(n) < n // 2), "truncated": end}
    )  # fmt: skip


def test_returns_and_lengths_by_hand():
    log = small([0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0])  # rewards 0 1 2 | 3 4 5
    assert episode_returns(log).tolist() == [3, 12]  # type: ignore[arg-type]
    assert episode_returns(log, 0.5).tolist() == [1.0, 6.25]  # type: ignore[arg-type]
    found = statistics(log, random=0.0, best=30.0)  # type: ignore[arg-type]
    assert (found.episodes, found.steps, found.lengths) == (2, 6, (3, 3))
    assert found.quality == 7.5 / 30 and found.terminated == 0.5 and found.sparsity == 1 / 6
    assert found.return_quantiles == (3, 5.25, 7.5, 9.75, 12)


def test_coverage_counts_unique_pairs_in_the_bins_of_the_reference():
    log = small([0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0])
    assert unique_pairs(log) == 4 and saco(log) == 4 / 6  # type: ignore[arg-type]
    other = small([0, 0.001, 0.002, 0, 0, 0], [0, 0, 0, 0, 0, 0])
    assert saco(other, log) == 1 / 4  # type: ignore[arg-type]
    assert saco(log, log) == 1.0  # type: ignore[arg-type]


def test_quality_is_0_for_random_and_1_for_the_best():
    log = small([0, 1], [0, 1])  # returns 0 and 1
    assert trajectory_quality(log, 0.5, 1.5) == 0.0  # type: ignore[arg-type]
    assert trajectory_quality(log, -0.5, 0.5) == 1.0  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the best return"):
        trajectory_quality(log, 1.0, 1.0)  # type: ignore[arg-type]


def test_spread_is_that_of_uniform_actions_for_random_and_the_entropy_for_numbers():
    assert action_spread(point_log("random", 20_000)) == pytest.approx(
        [1 / math.sqrt(3)] * 2, abs=0.01
    )
    log = small([0, 0, 0, 0], [0, 0, 1, 1])
    assert action_spread(log) == pytest.approx([1.0])  # type: ignore[arg-type]


def test_random_logs_cover_more_than_expert_ones_and_are_of_less_quality():
    random, expert = point_log("random", 3000), point_log("expert", 3000)
    assert saco(random, random) > 2 * saco(expert, random)
    assert episode_returns(random).mean() < episode_returns(expert).mean() - 10
