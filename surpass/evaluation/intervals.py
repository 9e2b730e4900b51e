"""Intervals for a mean, generic over scores: one formula for any estimator, any policy, any domain.

Scores are [n] per row, or summed by unit where rows are not independent. `level` is what the
interval leaves out in all, both sides together: 0.05 for a 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from surpass.errors import InputError, nearest
from surpass.evaluation.guarded import guarded_bounds
from surpass.evaluation.moments import BLOCKS, Moments

__all__ = [
    "INTERVALS", "Interval", "bernstein", "bootstrap", "clopper_pearson", "guarded", "interval",
    "normal", "simultaneous", "unit_means",
]  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A value that lies in [`low`, `high`] with probability 1 - `level`; `error` is its standard
    error."""

    value: float
    low: float
    high: float
    level: float
    method: str
    error: float = math.nan


def unit_means(scores: Float[Tensor, "n"], unit: Int[Tensor, "n"] | None) -> Float[Tensor, "U"]:
    """One score per unit, whose mean is the mean of the scores: the unit's sum over the mean number
    of rows per unit, with the mean restored.

    Formula: y_u = m + (U / n) sum_{i in u} (s_i - m), m the mean score: the influence function of
    the ratio sum s / n when units are drawn.
    """
    if unit is None:
        return scores
    _, place = torch.unique(unit, return_inverse=True)
    count = int(place.max()) + 1
    mean = scores.mean()
    sums = scores.new_zeros(count).index_add_(0, place, scores - mean)
    return mean + sums * (count / len(scores))


def normal(
    scores: Float[Tensor, "n"], level: float = 0.05, unit: Int[Tensor, "n"] | None = None
) -> Interval:
    """mean -+ t sd / sqrt(n), t Student's quantile with n - 1 degrees of freedom."""
    scores = unit_means(scores.to(torch.float64), unit)
    mean, error = float(scores.mean()), float(scores.std() / math.sqrt(len(scores)))
    t = float(stats.t.ppf(1 - level / 2, max(len(scores) - 1, 1)))
    return Interval(mean, mean - t * error, mean + t * error, level, "normal", error)


def bernstein(
    scores: Float[Tensor, "n"],
    low: float,
    high: float,
    level: float = 0.05,
    unit: Int[Tensor, "n"] | None = None,
) -> Interval:
    """The empirical Bernstein interval, valid for every n when scores lie in [low, high].

    Formula: sqrt(2 V log(4/level) / n) + 7 (high - low) log(4/level) / (3 (n - 1)) on either side,
    V the sample variance (Maurer and Pontil, Empirical Bernstein bounds and sample variance
    penalization, 2009, theorem 4, with level/2 a side). With units n counts those, and the range is
    that of the largest one's sum.

    Raises:
        InputError: when a score lies outside [low, high].
    """
    scores = scores.to(torch.float64)
    _within(scores, low, high)
    width = (high - low) * _reach(unit)
    scores = unit_means(scores, unit)
    return bernstein_from(float(scores.mean()), float(scores.var()), len(scores), width, level)


def _reach(unit: Int[Tensor, "n"] | None) -> float:
    """How much further a unit's score can lie from the mean than a row's: the largest unit over the
    mean one."""
    if unit is None:
        return 1.0
    size = torch.unique(unit, return_counts=True)[1]
    return int(size.max()) * len(size) / len(unit)


def bernstein_from(mean: float, variance: float, n: int, width: float, level: float) -> Interval:
    """The empirical Bernstein interval from the mean, the sample variance and the range of n
    scores."""
    log = math.log(4 / level)
    radius = math.sqrt(2 * variance * log / n) + 7 * width * log / (3 * max(n - 1, 1))
    error = math.sqrt(variance / n)
    return Interval(mean, mean - radius, mean + radius, level, "bernstein", error)


def bootstrap(
    scores: Float[Tensor, "n"],
    level: float = 0.05,
    resamples: int = 1000,
    seed: int = 0,
    unit: Int[Tensor, "n"] | None = None,
    blocks: int = BLOCKS,
) -> Interval:
    """The percentile interval of the multiplier bootstrap: exponential weights on scores, never a
    resampled row.

    Rows beyond `blocks` share multipliers by buckets (see `moments`), so a resample takes the time
    of `blocks` products.
    """
    sums = Moments([1], blocks)
    sums.add(scores[:, None], unit)
    drawn = torch.cat(list(sums.resampled(resamples, seed)))[:, 0]
    return percentile(float(sums.mean[0]), drawn, level, standard_error(sums, 0))


def percentile(value: float, drawn: Float[Tensor, "R"], level: float, error: float) -> Interval:
    """The interval between two quantiles of bootstrap values."""
    low, high = np.quantile(drawn.numpy(), [level / 2, 1 - level / 2])
    return Interval(value, float(low), float(high), level, "bootstrap", error)


def standard_error(sums: Moments, group: int) -> float:
    """The standard error of the mean of a group of one column."""
    return math.sqrt(max(float(sums.covariance(group)[0, 0]), 0.0) / sums.rows)


def clopper_pearson(scores: Float[Tensor, "n"], level: float = 0.05) -> Interval:
    """The exact interval of Clopper and Pearson, The use of confidence or fiducial limits
    illustrated in the case of the binomial (1934), for scores that take two values.

    Raises:
        InputError: when they take more than two.
    """
    values = torch.unique(scores.to(torch.float64))
    if len(values) > 2:
        raise InputError(
            f"Clopper-Pearson needs scores with two values; these have {len(values)}: use normal, "
            "bootstrap or guarded"
        )
    low, high = float(values[0]), float(values[-1])
    n, k = len(scores), int((scores == values[-1]).sum()) if len(values) == 2 else 0
    down = float(stats.beta.ppf(level / 2, k, n - k + 1)) if k > 0 else 0.0
    up = float(stats.beta.ppf(1 - level / 2, k + 1, n - k)) if k < n else 1.0
    width, share = high - low, k / n
    error = width * math.sqrt(share * (1 - share) / n)
    return Interval(
        low + width * share, low + width * down, low + width * up, level, "clopper-pearson", error
    )


def guarded(
    scores: Float[Tensor, "n"],
    low: float,
    high: float,
    level: float = 0.05,
    unit: Int[Tensor, "n"] | None = None,
) -> Interval:
    """The guarded bounds of the verdict, each at level/2: a point at `low` (at `high` for the upper
    bound) joins the scores.

    Raises:
        InputError: when a score lies outside [low, high].
    """
    scores = scores.to(torch.float64)
    if unit is not None:
        mean, reach = float(scores.mean()), _reach(unit)
        scores = unit_means(scores, unit)
        low, high = mean + reach * (low - mean), mean + reach * (high - mean)
    _within(scores, low, high)
    found = guarded_bounds(scores.numpy(), low, high, level / 2)
    error = float(scores.std() / math.sqrt(len(scores)))
    return Interval(found.mean, found.low, found.high, level, "guarded", error)


def _within(scores: Tensor, low: float, high: float) -> None:
    slack = 1e-9 * max(abs(low), abs(high), 1.0)
    if float(scores.min()) < low - slack or float(scores.max()) > high + slack:
        raise InputError(
            f"scores lie in [{float(scores.min()):g}, {float(scores.max()):g}], outside the stated "
            f"range [{low:g}, {high:g}]; state the range of the reward"
        )


INTERVALS: Mapping[str, Callable[..., Interval]] = {
    "normal": normal,
    "bootstrap": bootstrap,
    "bernstein": bernstein,
    "clopper-pearson": clopper_pearson,
    "guarded": guarded,
}


def interval(method: str, scores: Float[Tensor, "n"], **options: object) -> Interval:
    """An interval by the name of its method.

    Raises:
        InputError: on an unknown name.
    """
    if method not in INTERVALS:
        raise InputError(
            f"there is no interval {method!r}{nearest(method, list(INTERVALS))}; "
            f"there are {', '.join(INTERVALS)}"
        )
    return INTERVALS[method](scores, **options)


def simultaneous(
    scores: Float[Tensor, "J n"],
    level: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
    unit: Int[Tensor, "n"] | None = None,
    sides: int = 2,
) -> list[Interval]:
    """Intervals for J means that all hold at once: max-t by multipliers.

    Formula: mean_j -+ c se_j, c the (1 - level) quantile over multipliers of max_j |t_j| (of max_j
    t_j with `sides` = 1, where only the lower bounds are meant). Chernozhukov, Chetverikov and
    Kato, Gaussian approximations and multiplier bootstrap for maxima of sums (2013).
    """
    sums = Moments([1] * len(scores))
    sums.add(scores.T, unit)
    drawn = torch.cat(list(sums.resampled(resamples, seed)))
    error = torch.tensor([standard_error(sums, j) for j in range(len(scores))])
    return max_t(sums.mean, drawn, error, level, sides)


def max_t(
    value: Float[Tensor, "J"],
    drawn: Float[Tensor, "R J"],
    error: Float[Tensor, "J"],
    level: float,
    sides: int = 2,
) -> list[Interval]:
    """Simultaneous intervals from bootstrap values and standard errors."""
    error = error.to(torch.float64)
    t = (drawn - value) / error.clamp_min(1e-300)
    t = t.abs() if sides == 2 else t
    t = torch.where(error > 0, t, torch.zeros_like(t))
    c = float(np.quantile(t.amax(-1).numpy(), 1 - level))
    return [
        Interval(v, v - c * e, v + c * e, level, "simultaneous", e)
        for v, e in zip(value.tolist(), error.tolist(), strict=True)
    ]
