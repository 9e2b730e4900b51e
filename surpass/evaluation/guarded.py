"""The guarded test: is the mean of bounded scores above a margin, though a rare bad event may not
have been seen yet?

A point at the lowest value that a score could take (the guard) joins the scores x_1 .. x_n, and

    p = P(sum_i E_i x_i <= 0),    E_i independent standard exponentials,

is computed by the saddlepoint formula of Lugannani and Rice (Saddle point approximation for the
distribution of the sum of independent random variables, 1980). This is the Dirichlet bound of
Gaffke (Nonparametric one-sided testing for the mean, 2005) and of Learned-Miller and Thomas (A new
confidence interval for the mean of a bounded random variable, 2019). On two-valued scores it is the
exact binomial test; in large samples it is the t test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

__all__ = ["Bounds", "ScoreHistogram", "guarded_bounds", "guarded_low", "guarded_p"]

Array = np.ndarray
_SMALL_Z = 0.2
_SQRT_TAU = math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Bounds:
    """A mean with two one-sided bounds, each at `level`: together an interval at 1 - 2 level."""

    mean: float
    low: float
    high: float
    level: float


def guarded_p(x: Float[Array, "n"], guard: float, weight: Float[Array, "n"] | None = None) -> float:
    """The p-value of "the mean of x is at most 0", against "it is positive".

    Args:
        x: scores minus the margin, one per independent unit, in any unit of measure.
        guard: the smallest value that any x could have taken, minus the margin too; it counts as
            one more score.
        weight: how many times each point stands in the sample; all 1 when not given.

    Formula: with lambda the root of sum x / (1 + lambda x) = 0 in (0, 1 / |min x|),
    z = sqrt(2 sum log(1 + lambda x)), u = lambda sqrt(sum (x / (1 + lambda x))^2),
    p = Phi(-z) - phi(z) (1/z - 1/u). For z < 0.2, where the formula divides small by small,
    max(0.3, p of the t test). A total of 0 or less gives 1; no negative point and a positive total
    give 0.

    Raises:
        ValueError: when a score lies below the guard (the guard was not the smallest possible
            value) or is not finite.
    """
    x = np.ascontiguousarray(x, dtype=np.float64)
    guard = float(guard)
    _check(x, guard)
    return _p(x, guard, None if weight is None else np.asarray(weight, dtype=np.float64))


def _check(x: Array, guard: float) -> None:
    if not (math.isfinite(guard) and bool(np.isfinite(x).all())):
        raise ValueError("the guarded test takes finite scores only")
    if x.size and x.min() < guard - 1e-9 * max(1.0, abs(guard)):
        raise ValueError(f"a score of {x.min():g} lies below its lower limit {guard:g}")


def _p(x: Array, guard: float, weight: Array | None) -> float:
    root = _root(x, guard, weight)
    if not isinstance(root, tuple):
        return root
    lam, ratio_guard, ratio = root
    t = 1.0 + lam * x
    log_w = math.log1p(lam * guard) + float(
        np.log(t).sum() if weight is None else weight @ np.log(t)
    )
    z = math.sqrt(max(2.0 * log_w, 0.0))
    if z < _SMALL_Z:
        return max(0.3, _t_p(x, guard, weight))
    squares = float(ratio @ ratio if weight is None else weight @ (ratio * ratio))
    u = lam * math.sqrt(squares + ratio_guard * ratio_guard)
    density = math.exp(-0.5 * z * z) / _SQRT_TAU
    return min(max(float(ndtr(-z)) - density * (1.0 / z - 1.0 / u), 0.0), 1.0)


def _root(x: Array, guard: float, weight: Array | None) -> float | tuple[float, float, Array]:
    """The p itself where it needs no root, else lambda with x / (1 + lambda x) for the guard and
    for every point."""
    total = guard + float(x.sum() if weight is None else weight @ x)
    if total <= 0.0:
        return 1.0
    least = min(guard, float(x.min()))
    if least >= 0.0:
        return 0.0
    squares = guard * guard + float(x @ x if weight is None else weight @ (x * x))
    low, high = 0.0, -1.0 / least
    lam = min(total / squares, 0.5 * high)
    tolerance = 1e-12 * high
    ratio, ratio_guard = x, guard
    for _ in range(100):
        ratio = x / (1.0 + lam * x)
        ratio_guard = guard / (1.0 + lam * guard)
        value = ratio_guard + float(ratio.sum() if weight is None else weight @ ratio)
        slope = -ratio_guard * ratio_guard - float(
            ratio @ ratio if weight is None else weight @ (ratio * ratio)
        )
        if value > 0.0:
            low = lam
        else:
            high = lam
        # Newton on value * (1 + lambda least): without its pole the function is nearly straight
        room = 1.0 + lam * least
        step = value * room / (slope * room + value * least)
        after = lam - step
        if not low < after < high:
            after = 0.5 * (low + high)
        if abs(after - lam) <= 1e-10 * lam + tolerance:
            break
        lam = after
    return lam, ratio_guard, ratio


def _t_p(x: Array, guard: float, weight: Array | None) -> float:
    count = 1.0 + (x.size if weight is None else float(weight.sum()))
    total = guard + float(x.sum() if weight is None else weight @ x)
    squares = guard * guard + float(x @ x if weight is None else weight @ (x * x))
    mean = total / count
    variance = max(squares - count * mean * mean, 0.0) / max(count - 1.0, 1.0)
    if variance == 0.0:
        return 1.0 if mean <= 0 else 0.0
    return float(stdtr(max(count - 1.0, 1.0), -mean / math.sqrt(variance / count)))


def guarded_low(
    total: Float[Array, "n"],
    guard: Callable[[float], float],
    level: float = 0.05,
    exposure: Float[Array, "n"] | None = None,
    weight: Float[Array, "n"] | None = None,
) -> float:
    """The largest margin m at which the guarded p of (total - m exposure) is still at most `level`.

    Args:
        total: the (scaled) scores of each unit, summed, with no margin taken off.
        guard: the guard as a function of m; non-increasing.
        level: one-sided.
        exposure: the derivative of each unit's score by m, so 1 / s for a row of a stage scaled by
            s; 1 when not given.
        weight: how many times each point stands in the sample.

    Brent's method on the normal quantile of p, which is nearly a straight line in m.
    """
    total = np.ascontiguousarray(total, dtype=np.float64)
    exposure = np.ones_like(total) if exposure is None else np.asarray(exposure, dtype=np.float64)
    weight = None if weight is None else np.asarray(weight, dtype=np.float64)
    sums = (total.sum(), exposure.sum()) if weight is None else (weight @ total, weight @ exposure)
    high = float(sums[0] / sums[1])

    def excess(m: float) -> float:
        p = _p(total - m * exposure, guard(m), weight)
        return float(_quantile(p) - _quantile(level))

    spread = float(np.sqrt(np.average((total / exposure - high) ** 2, weights=weight)))
    count = total.size if weight is None else float(weight.sum())
    scale = max(spread, 1e-12 * max(1.0, abs(high)))
    width = 2.5 * scale / math.sqrt(count)
    if excess(high) <= 0.0:  # no point can lie below the mean
        return high
    low = high - width
    while excess(low) > 0.0:
        high = low
        width *= 2.0
        low -= width
    return cast(float, brentq(excess, low, high, xtol=1e-10 * scale))


def _quantile(p: float) -> float:
    """The normal quantile of p, held finite where p is 0 or 1."""
    return float(ndtri(min(max(p, 1e-250), 1.0 - 1e-12)))


def guarded_bounds(
    scores: Float[Array, "n"],
    lower: float,
    upper: float,
    level: float = 0.05,
    weight: Float[Array, "n"] | None = None,
) -> Bounds:
    """Mean of bounded scores with its guarded one-sided bounds.

    Args:
        scores: one per independent unit, each in [lower, upper].
        lower: the smallest value that a score could take.
        upper: the largest.
        level: of each bound; both together leave out 2 level.
        weight: how many times each point stands in the sample.

    Raises:
        ValueError: when a score lies outside the limits.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _check(scores, float(lower))
    _check(-scores, -float(upper))
    mean = float(np.average(scores, weights=weight))
    low = guarded_low(scores, lambda m: lower - m, level, weight=weight)
    high = -guarded_low(-scores, lambda m: -upper - m, level, weight=weight)
    return Bounds(mean, low, high, level)


class ScoreHistogram:
    """Scores of any number of rows in constant memory, for the guarded test of logs that do not
    fit.

    Each score is split between the two edges of its bin in the proportion that keeps its mean. That
    spreads the sample out, so the test can only lose power, and it loses of second order in the bin
    width (left edges, the
    other conservative choice, lose half a bin of gain: more than a standard error at 20 million
        rows).
    """

    def __init__(self, lower: float, upper: float, bins: int = 100_000) -> None:
        """Scores lie in [lower, upper]; both are the limits that scoring computes.

        Raises:
            ValueError: when the limits are not finite or not in order.
        """
        if not (math.isfinite(lower) and math.isfinite(upper) and lower <= upper):
            raise ValueError(f"a histogram needs finite limits in order, not [{lower}, {upper}]")
        self.lower, self.upper = float(lower), float(upper)
        self.step = max((self.upper - self.lower) / bins, 1e-300)
        self.mass = np.zeros(bins + 1)

    def add(self, scores: Float[Array, "n"], weight: Float[Array, "n"] | None = None) -> None:
        """Count scores; each must lie within the limits (a rounding error outside is moved in)."""
        place = (np.asarray(scores, dtype=np.float64) - self.lower) / self.step
        last = self.mass.size - 1
        if place.size and (place.min() < -0.01 or place.max() > last + 0.01):
            raise ValueError("a score lies outside the limits of the histogram")
        left = np.clip(np.floor(place), 0, last - 1).astype(np.int64)
        share = np.clip(place - left, 0.0, 1.0)
        weight = np.ones_like(share) if weight is None else np.asarray(weight, dtype=np.float64)
        self.mass += np.bincount(left, weight * (1.0 - share), minlength=last + 1)
        self.mass += np.bincount(left + 1, weight * share, minlength=last + 1)

    def points(self) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
        """The edges that carry mass, and how much."""
        used = np.flatnonzero(self.mass)
        return self.lower + used * self.step, self.mass[used]

    def p(self, margin: float = 0.0) -> float:
        """The guarded p of "the mean is at most margin"."""
        points, mass = self.points()
        return _p(points - margin, self.lower - margin, mass)

    def bounds(self, level: float = 0.05) -> Bounds:
        """The mean with its guarded bounds."""
        points, mass = self.points()
        mean = float(np.average(points, weights=mass))
        low = guarded_low(points, lambda m: self.lower - m, level, weight=mass)
        high = -guarded_low(-points, lambda m: -self.upper - m, level, weight=mass)
        return Bounds(mean, low, high, level)


def pooled_guard(
    limits: Sequence[tuple[float, float]], largest_unit: int = 1
) -> Callable[[float], float]:
    """The guard of stages with different scales, as a function of the margin.

    Args:
        limits: for each stage (L, s): the lower limit of a row's score and the scale that divides
            it.
        largest_unit: the most rows that one unit holds.
    """

    def guard(m: float) -> float:
        least = min((lower - m) / scale for lower, scale in limits)
        return least * (largest_unit if least < 0 else 1)  # a unit of one row adds up to the least

    return guard
