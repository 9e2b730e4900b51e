"""Arms without contexts, learned pull by pull: plain, windowed and discounted means, and trends.

Every row of a batch is an independent learner: row i of the next batch goes on where row i of the
last one stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Outlook

__all__ = ["Means", "Trends"]


@dataclass(frozen=True)
class Means:
    """The mean reward of each arm; `spread` is n^(-1/2), infinite for arms never pulled.

    Auer, Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem (2002);
    with `window` (last rounds) or `discount` (per round): Garivier and Moulines, On
    upper-confidence
    bound policies for switching bandit problems (2011).

    Raises:
        InputError: when both a window and a discount are given.
    """

    window: int | None = None
    discount: float = 1.0

    def __post_init__(self) -> None:
        if self.window is not None and self.discount < 1:
            raise InputError("means forget by a window or by a discount, not by both")

    def begin(self, rows: int, features: int, actions: int, seed: int) -> _Means:
        """Independent learners, one a row."""
        return _Means(self, rows, actions)


class _Means:
    def __init__(self, how: Means, rows: int, actions: int) -> None:
        self.how = how
        self.count, self.total = np.zeros((rows, actions)), np.zeros((rows, actions))
        self.recent: list[tuple[np.ndarray, np.ndarray]] = []

    def outlook(self, context: Tensor) -> Outlook:
        n = self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(n > 1e-9, self.total / np.maximum(n, 1e-9), 0.0)
            spread = np.where(n > 1e-9, 1 / np.sqrt(np.maximum(n, 1e-9)), np.inf)
        return Outlook(torch.from_numpy(mean), torch.from_numpy(spread))

    def learn(self, batch: Any) -> None:
        rows, arms, reward = np.arange(len(self.count)), batch.action.numpy(), batch.reward.numpy()
        if self.how.discount < 1:
            self.count *= self.how.discount
            self.total *= self.how.discount
        self.count[rows, arms] += 1
        self.total[rows, arms] += reward
        if self.how.window is not None:
            self.recent.append((arms, reward))
            if len(self.recent) > self.how.window:
                old, paid = self.recent.pop(0)
                self.count[rows, old] -= 1
                self.total[rows, old] -= paid
                self.total[self.count < 0.5] = 0.0


@dataclass(frozen=True)
class Trends:
    """A least-squares line through each arm's rewards since its last change, read at the next pull.

    With u_j = (j, 1) for the j-th pull, the prediction is theta'(n + 1, 1), and `spread` the root
    of
    (n + 1, 1) (sum u u')^-1 (n + 1, 1)'; infinite until an arm was pulled twice. Once there are
    2 `window` pulls, lines through the last window and the one before are compared at the next
    pull:
    where they differ by more than `change` / 2, the arm forgets all but the last window.

    Which LLM to Play? Convergence-Aware Online Model Selection with Time-Increasing Bandits (2024).

    Args:
        window: pulls in each half of the change detector. change: the smallest change worth
            noticing; None: no detector.
    """

    window: int = 100
    change: float | None = 0.3

    def begin(self, rows: int, features: int, actions: int, seed: int) -> _Trends:
        """Independent learners, one a row."""
        return _Trends(self, rows, actions)


class _Trends:
    def __init__(self, how: Trends, rows: int, actions: int) -> None:
        self.how = how
        shape = (rows, actions)
        self.n, self.y, self.jy = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.last = np.zeros((*shape, 2 * how.window))  # a ring of the latest rewards
        self.place = np.zeros(shape, dtype=np.int64)
        j = np.arange(1, how.window + 1)
        slope = (j - j.mean()) / ((j - j.mean()) ** 2).sum()
        # The reading of a half's line at the pull after the second half.
        self.near = 1 / how.window + slope * (how.window + 1 - j.mean())
        self.far = 1 / how.window + slope * (2 * how.window + 1 - j.mean())

    def outlook(self, context: Tensor) -> Outlook:
        n = np.maximum(self.n, 2.0)
        middle, square = (n + 1) / 2, n * (n * n - 1) / 12  # mean of 1..n, and its sum of squares
        slope = (self.jy - middle * self.y) / square
        ahead = (n + 1) - middle
        young = self.n < 2
        mean = np.where(young, 0.0, self.y / n + slope * ahead)
        spread = np.where(young, np.inf, np.sqrt(1 / n + ahead**2 / square))
        return Outlook(torch.from_numpy(mean), torch.from_numpy(spread))

    def learn(self, batch: Any) -> None:
        rows, a, y = np.arange(len(self.n)), batch.action.numpy(), batch.reward.numpy()
        self.n[rows, a] += 1
        self.y[rows, a] += y
        self.jy[rows, a] += self.n[rows, a] * y
        width = 2 * self.how.window
        self.last[rows, a, self.place[rows, a]] = y
        self.place[rows, a] = (self.place[rows, a] + 1) % width
        if self.how.change is None:
            return
        full = self.n[rows, a] >= width
        if full.any():
            self._forget(rows[full], a[full])

    def _forget(self, rows: np.ndarray, arms: np.ndarray) -> None:
        """Keep only the last window of the arms whose two halves disagree."""
        assert self.how.change is not None
        w = self.how.window
        at = (self.place[rows, arms][:, None] + np.arange(2 * w)) % (2 * w)
        series = self.last[rows[:, None], arms[:, None], at]  # oldest first
        gap = np.abs(series[:, :w] @ self.far - series[:, w:] @ self.near)
        moved = gap > self.how.change / 2
        if moved.any():
            r, a, kept = rows[moved], arms[moved], series[moved, w:]
            self.n[r, a], self.y[r, a] = w, kept.sum(1)
            self.jy[r, a] = kept @ np.arange(1, w + 1)
