"""Staged evaluation: learn on the first rows, score the next; every scored row is new to the policy
that it scores.

Centered scores are then martingale differences, so stages need no correction for one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError

__all__ = ["SHARES", "Plan", "folds_of", "plan_stages"]

# (learn on the first share, score up to the second)
SHARES = ((0.3, 0.5), (0.5, 0.75), (0.75, 1.0))


@dataclass(frozen=True)
class Plan:
    """Which rows are learned from and scored in each stage.

    Attributes:
        order: [N] rows in the order of the stages; units are never split between stages.
        unit: [N] the unit of each row of the log, numbered 0 .. U - 1 in the order of the stages.
        bounds: per stage (learn until, score until), positions in `order`.
        largest_unit: the most rows that one unit holds.
        by_time: the order is that of time, not a seeded permutation.
    """

    order: Int[Tensor, "N"]
    unit: Int[Tensor, "N"]
    bounds: tuple[tuple[int, int], ...]
    largest_unit: int
    by_time: bool

    def learn(self, stage: int) -> Int[Tensor, "n"]:
        """The rows that the stage learns from."""
        return self.order[: self.bounds[stage][0]]

    def score(self, stage: int) -> Int[Tensor, "n"]:
        """The rows that the stage scores."""
        start, stop = self.bounds[stage]
        return self.order[start:stop]

    @property
    def grouped(self) -> bool:
        """Some unit holds several rows."""
        return self.largest_unit > 1

    @property
    def scored_units(self) -> int:
        """How many units are scored in all."""
        rows = self.order[self.bounds[0][0] : self.bounds[-1][1]]
        return int(self.unit[rows[-1]] - self.unit[rows[0]]) + 1


def plan_stages(
    rows: int,
    *,
    group: Int[Tensor, "N"] | None = None,
    time: Float[Tensor, "N"] | None = None,
    seed: int = 0,
    shares: tuple[tuple[float, float], ...] = SHARES,
) -> Plan:
    """Lay the rows out in stages: consecutive in time where time is given, else by a seeded
    permutation of units.

    Args:
        rows: N.
        group: the unit of each row; every row is a unit of its own when not given.
        time: of each row; a unit comes when its first row does.
        seed: of the permutation.
        shares: per stage, the shares of rows that are learned from, and that are done after
            scoring.

    Raises:
        InputError: when there are too few units to give every stage one.
    """
    if group is None:
        rank = (
            np.random.default_rng(seed).permutation(rows)
            if time is None
            else np.argsort(time.numpy(), kind="stable")
        )
        unit = np.empty(rows, dtype=np.int64)
        unit[rank] = np.arange(rows)
        order, sizes = rank, np.ones(rows, dtype=np.int64)
    else:
        _, first, label = np.unique(group.numpy(), return_index=True, return_inverse=True)
        if time is None:
            place = np.random.default_rng(seed).permutation(len(first))
        else:
            start = np.full(len(first), np.inf)
            np.minimum.at(start, label, time.numpy())
            place = np.lexsort((first, start))
        number = np.empty(len(first), dtype=np.int64)
        number[place] = np.arange(len(first))
        unit = number[label.reshape(-1)]
        within = np.arange(rows) if time is None else time.numpy()
        order = np.lexsort((within, unit))
        sizes = np.bincount(unit)
    ends = np.cumsum(sizes)
    cuts = sorted({share for pair in shares for share in pair})
    at = {share: int(ends[np.searchsorted(ends, share * rows - 1e-9)]) for share in cuts[:-1]}
    at[cuts[-1]] = (
        int(ends[-1]) if cuts[-1] >= 1 else int(ends[np.searchsorted(ends, cuts[-1] * rows)])
    )
    bounds = tuple((at[a], at[b]) for a, b in shares)
    if any(a >= b or a == 0 for a, b in bounds):
        raise InputError(
            f"{len(sizes)} units are too few for {len(shares)} stages: "
            "give more rows, or a finer --group"
        )
    return Plan(
        torch.from_numpy(np.ascontiguousarray(order)),
        torch.from_numpy(unit),
        bounds,
        int(sizes.max()),
        time is not None,
    )


def folds_of(unit: Int[Tensor, "n"], folds: int, seed: int) -> Int[Tensor, "n"]:
    """A fold for every row, the same within a unit, of nearly equal numbers of units.

    Raises:
        InputError: when there are fewer units than folds.
    """
    _, label = torch.unique(unit, return_inverse=True)
    units = int(label.max()) + 1
    if units < folds:
        raise InputError(
            f"{units} units are too few for {folds} folds: give more rows, or a finer --group"
        )
    place = torch.from_numpy(np.random.default_rng(seed).permutation(units))
    return place[label] % folds
