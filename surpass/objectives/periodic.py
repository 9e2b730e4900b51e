"""Schedules for arms that recover while they rest: an upper bound, and purely periodic plans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

__all__ = ["Periods", "best_rates", "periodic", "upper_envelope"]


def upper_envelope(reward: Float[np.ndarray, "D"]) -> list[tuple[float, float, int]]:
    """Corners (rate, reward per round, period) of the concave envelope of (0, 0) and the points
    (1/d, R(d)/d): what an arm can earn per round when it is pulled at a rate."""
    points = [(0.0, 0.0, 0)]
    for d in range(len(reward), 0, -1):
        new = (1 / d, float(reward[d - 1]) / d, d)
        while len(points) > 1:
            (x0, y0, _), (x1, y1, _) = points[-2], points[-1]
            if (y1 - y0) * (new[0] - x1) > (new[1] - y1) * (x1 - x0) + 1e-15:
                break
            points.pop()
        points.append(new)
    return points


def best_rates(
    rewards: Float[np.ndarray, "N D"], pulls: int
) -> tuple[float, Float[np.ndarray, "N"]]:
    """The linear program's bound on the average reward per round of any policy with `pulls` pulls a
    round, and each arm's rate: envelope slopes are bought from the steepest.

    Args:
        rewards: R_i(d), the mean reward of arm i after d rounds of rest, d = 1 to D, not falling.
    """
    pieces = []
    for arm, row in enumerate(rewards):
        corners = upper_envelope(row)
        for (x0, y0, _), (x1, y1, _) in pairwise(corners):
            pieces.append(((y1 - y0) / (x1 - x0), arm, x1 - x0))
    rate, left, total = np.zeros(len(rewards)), float(pulls), 0.0
    for slope, arm, width in sorted(pieces, reverse=True):
        if slope <= 0 or left <= 0:
            break
        taken = min(width, left)
        rate[arm] += taken
        total += slope * taken
        left -= taken
    return total, rate


@dataclass(frozen=True)
class Periods:
    """Arm i is pulled in rounds t = offset_i mod period_i; period 0 means never."""

    period: tuple[int, ...]
    offset: tuple[int, ...]
    value: float

    def pulled(self, t: int) -> list[int]:
        """The arms of round t."""
        both = zip(self.period, self.offset, strict=True)
        return [i for i, (d, o) in enumerate(both) if d and t % d == o]


def periodic(rewards: Float[np.ndarray, "N D"], pulls: int) -> Periods:
    """The best purely periodic plan over roundings: rates of the bound, periods rounded up to
    (2j - 1) 2^l with j at most J, arms of one odd base packed without collisions in as few channels
    as their rates need, arms that do not fit dropped by reward per rate; J from 1 to sqrt(K) + 2.

    Simchi-Levi, Zheng and Zhu, Offline planning and online learning under recovering rewards
    (2021); dropping and the search over J are ours.
    """
    rate = best_rates(rewards, pulls)[1]
    plans = [_packed(rewards, rate, pulls, j) for j in range(1, math.isqrt(pulls) + 4)]
    return max(plans, key=lambda plan: plan.value)


def _rounded(rate: float, bases: int) -> tuple[int, int]:
    """(odd base, period) of the smallest allowed period that is at least 1 / rate."""
    wanted = math.ceil(1 / rate - 1e-9)
    found = []
    for j in range(1, bases + 1):
        base = 2 * j - 1
        found.append((base << max(0, math.ceil(math.log2(wanted / base) - 1e-12)), base))
    period, base = min(found)
    return base, period


def _packed(rewards: np.ndarray, rate: np.ndarray, pulls: int, bases: int) -> Periods:
    longest = rewards.shape[1]
    chosen = {i: _rounded(x, bases) for i, x in enumerate(rate) if x > 1e-9}

    def worth(i: int) -> float:
        return float(rewards[i, min(chosen[i][1], longest) - 1])

    while True:
        need = {}
        for base, period in chosen.values():
            need[base] = need.get(base, 0.0) + 1 / period
        if sum(math.ceil(v - 1e-9) for v in need.values()) <= pulls:
            break
        del chosen[min(chosen, key=worth)]
    period, offset = [0] * len(rewards), [0] * len(rewards)
    for base in {b for b, _ in chosen.values()}:
        mine = sorted((p, i) for i, (b, p) in chosen.items() if b == base)
        channels: list[list[tuple[int, int]]] = []
        for p, i in mine:
            place = _free(channels, p)
            if place is None:
                channels.append([])
                place = len(channels) - 1, 0
            channels[place[0]].append((p, place[1]))
            period[i], offset[i] = p, place[1]
    value = sum(worth(i) / p for i, (_, p) in chosen.items())
    return Periods(tuple(period), tuple(offset), value)


def _free(channels: list[list[tuple[int, int]]], period: int) -> tuple[int, int] | None:
    """The first channel and offset where a period meets none of the shorter ones there."""
    for c, taken in enumerate(channels):
        for offset in range(period):
            if all(offset % p != o for p, o in taken):
                return c, offset
    return None
