"""Users whose tastes turn, and items that are replaced: the world of an online recommender."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from surpass.tasks.arms import Scene

__all__ = ["DriftingTastes"]


class DriftingTastes:
    """P(click) = sigmoid(2 u'v - 1.5), u and v of 8 dimensions; with every scene (a window) all
    tastes turn by `angle` in random planes, and every fifth scene a share of the items is new.

    A context is [user, item of action 0, ..], whole numbers; a new item has a new number.
    """

    def __init__(
        self, users: int = 2000, items: int = 60, angle: float = 0.05, renewed: float = 0.05,
        seed: int = 0,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.rng, self.renewed, self.windows = rng, renewed, 0
        self.tastes = rng.normal(size=(users, 8)) / 8**0.25
        self.looks = rng.normal(size=(items, 8)) / 8**0.25
        self.item, self.next = np.arange(items), items
        skew = rng.normal(size=(8, 8))
        skew = skew - skew.T
        skew *= angle / np.sqrt((skew**2).sum() / 8)
        self.turn = torch.linalg.matrix_exp(torch.from_numpy(skew)).numpy()

    def scene(self, n: int, rng: np.random.Generator) -> Scene:
        """n users at random, and all items; then the world moves on."""
        scene = self.still(n, rng)
        self.windows += 1
        self.tastes = self.tastes @ self.turn
        if self.windows % 5 == 0:
            count = round(self.renewed * len(self.item))
            which = rng.choice(len(self.item), count, replace=False)
            self.looks[which] = self.rng.normal(size=(count, 8)) / 8**0.25
            self.item = self.item.copy()
            self.item[which] = self.next + np.arange(count)
            self.next += count
        return scene

    def still(self, n: int, rng: np.random.Generator) -> Scene:
        """n users at random, and nothing moves."""
        user = rng.integers(len(self.tastes), size=n)
        logit = 2 * self.tastes[user] @ self.looks.T - 1.5
        ids = np.concatenate((user[:, None], np.broadcast_to(self.item, (n, len(self.item)))), 1)
        mean = torch.sigmoid(torch.from_numpy(logit))
        return Scene(torch.from_numpy(ids).double(), mean)

    def paid(self, scene: Scene, action: Tensor, rng: np.random.Generator) -> Tensor:
        """Clicks."""
        p = scene.mean.gather(1, action[:, None])[:, 0]
        return (torch.from_numpy(rng.random(len(p))) < p).double()
