"""Restless bandits whose pulls are coupled by linear constraints: each arm moves between four
levels, up more likely when it is pulled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Restless", "capacity_problem"]

LEVELS = 4


@dataclass(frozen=True, eq=False)
class Restless:
    """Arms with levels 0 to 3, of which a feasible set is pulled each round.

    Attributes:
        up: the chance to rise [J, 2], not pulled and pulled; otherwise the arm falls.
        reward: of each level [J, 4]. A, b: pulls a in {0, 1}^J are feasible where A a <= b.
        horizon: rounds.
    """

    up: Float[np.ndarray, "J 2"]
    reward: Float[np.ndarray, "J 4"]
    A: Float[np.ndarray, "c J"]
    b: Float[np.ndarray, "c"]
    horizon: int = 10

    @property
    def arms(self) -> int:
        """J."""
        return len(self.up)

    def feasible(self) -> Float[np.ndarray, "F J"]:
        """All feasible pulls, listed."""
        every = np.array(list(product((0.0, 1.0), repeat=self.arms)))
        return every[(every @ self.A.T <= self.b + 1e-9).all(1)]

    def expected(self, levels: Int[np.ndarray, "J"], pulls: Float[np.ndarray, "J"]) -> float:
        """The mean reward of the next levels."""
        j = np.arange(self.arms)
        p = self.up[j, pulls.astype(int)]
        higher = self.reward[j, np.minimum(levels + 1, LEVELS - 1)]
        lower = self.reward[j, np.maximum(levels - 1, 0)]
        return float((p * higher + (1 - p) * lower).sum())

    def gains(self, levels: Int[np.ndarray, "J"]) -> Float[np.ndarray, "J"]:
        """What pulling each arm adds to the next mean reward."""
        j = np.arange(self.arms)
        higher = self.reward[j, np.minimum(levels + 1, LEVELS - 1)]
        lower = self.reward[j, np.maximum(levels - 1, 0)]
        return (self.up[:, 1] - self.up[:, 0]) * (higher - lower)

    def step(
        self,
        levels: Int[np.ndarray, "J"],
        pulls: Float[np.ndarray, "J"],
        rng: np.random.Generator,
    ) -> Int[np.ndarray, "J"]:
        """The next levels."""
        rises = rng.random(self.arms) < self.up[np.arange(self.arms), pulls.astype(int)]
        return np.clip(levels + np.where(rises, 1, -1), 0, LEVELS - 1)


def capacity_problem(
    arms: int = 8, budget: float | None = None, seed: int = 0, horizon: int = 10
) -> Restless:
    """Arms that cost 2 to 6 and a worker of limited capacity; with `budget`, all cost 1 and so many
    may be pulled. A third of the arms pay well, but only at the top level, so that a myopic choice,
    which sees the next level only, starves them; the others pay more on the way.
    """
    rng = np.random.default_rng(seed)
    up = np.stack((rng.uniform(0.0, 0.2, arms), rng.uniform(0.7, 0.9, arms)), 1)
    good = rng.permutation(arms) < max(arms // 3, 2)
    low = np.where(good[:, None], (0.2, 0.15, 0.1), (0.1, 0.15, 0.2))
    top = np.where(good, rng.uniform(4, 6, arms), rng.uniform(1, 3, arms))
    reward = np.concatenate((low, top[:, None]), 1)
    if budget is not None:
        return Restless(up, reward, np.ones((1, arms)), np.array([budget]), horizon)
    cost = rng.integers(2, 7, size=arms).astype(float)
    return Restless(up, reward, cost[None], np.array([rng.integers(8, 12)]).astype(float), horizon)
