"""A stock that grows, varies and is harvested by quota."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from surpass.tasks.draws import drawn

__all__ = ["Fishery", "Harvested"]


@dataclass(frozen=True)
class Harvested:
    """Replicates over time: stock and quota [n, T]."""

    stock: Float[np.ndarray, "n T"]
    quota: Float[np.ndarray, "n T"]

    @property
    def variance(self) -> float:
        """Of the quota over time, the mean over replicates."""
        return float(self.quota.var(1).mean())

    @property
    def autocorrelation(self) -> float:
        """Of the quota with the one before, the mean over replicates that changed it."""
        moved = self.quota[self.quota.std(1) > 0]
        x = moved - moved.mean(1, keepdims=True)
        return float(((x[:, 1:] * x[:, :-1]).sum(1) / (x**2).sum(1)).mean())


@dataclass(frozen=True)
class Fishery:
    """x' = Z f(x - h), f(s) = growth s / (1 + crowding s), log Z ~ N(0, spread^2); profit
    price min(h, x) - (effort + more E) E with effort E = h / x. Stocks and quotas lie on grids.

    `more` is a cost that grows with the square of effort: beside costs of adjustment a control,
    for it lowers harvests, not their changes.

    "Optimal management of a stochastically varying population when policy adjustment is costly"
    (2017).
    """

    growth: float = 1.5
    crowding: float = 0.05
    spread: float = 0.2
    price: float = 10.0
    effort: float = 30.0
    more: float = 0.0
    points: int = 50

    @property
    def capacity(self) -> float:
        """K, where the stock stays without harvest."""
        return (self.growth - 1) / self.crowding

    @cached_property
    def stocks(self) -> Float[np.ndarray, "X"]:
        """From 0.01 to 1.2 K."""
        return np.linspace(0.01, 1.2 * self.capacity, self.points)

    @cached_property
    def quotas(self) -> Float[np.ndarray, "A"]:
        """From 0.01 to 0.8 K."""
        return np.linspace(0.01, 0.8 * self.capacity, self.points)

    @cached_property
    def profit(self) -> Float[np.ndarray, "X A"]:
        """Of a step."""
        x, h = self.stocks[:, None], self.quotas[None]
        e = h / x
        return self.price * np.minimum(h, x) - (self.effort + self.more * e) * e

    @cached_property
    def P(self) -> Float[np.ndarray, "X A X"]:
        """Log-normal densities on the grid, normalized; an emptied stock stays at the least one."""
        s = np.maximum(self.stocks[:, None] - self.quotas[None], 0)
        mean = self.growth * s / (1 + self.crowding * s)
        ratio = self.stocks[None, None] / np.maximum(mean, 1e-12)[..., None]
        density = np.exp(-0.5 * (np.log(ratio) / self.spread) ** 2) / ratio
        density[density.sum(-1) < 1e-300] = np.eye(self.points)[0]
        return density / density.sum(-1, keepdims=True)

    def nearest(self, x: float) -> int:
        """The grid point of a stock."""
        return int(np.abs(self.stocks - x).argmin())

    def simulate(
        self, policy: Int[np.ndarray, "T X A"], start: int, first: int, replicates: int,
        rng: np.random.Generator,
    ) -> Harvested:  # fmt: skip
        """Follow a policy, quota numbers by (step, stock, last quota), from one stock and quota."""
        s, h = np.full(replicates, start), np.full(replicates, first)
        stock, quota = [], []
        for step in policy:
            h = step[s, h]
            stock.append(self.stocks[s])
            quota.append(self.quotas[h])
            s = drawn(self.P[s, h], rng)
        return Harvested(np.stack(stock, 1), np.stack(quota, 1))
