"""A grid over which a wind blows: one problem, and one model of it for every wind there may be."""

from __future__ import annotations

import numpy as np
import torch

from surpass.tasks.tabular import TabularMDP
from surpass.tasks.trap_grid import MOVES, moved

__all__ = ["STRENGTHS", "windy_grids"]

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5)


def windy_grids(
    rng: np.random.Generator, side: int = 6, traps: int = 5, gamma: float = 0.95,
    strengths: tuple[float, ...] = STRENGTHS, cost: float = 0.02,
) -> list[TabularMDP]:  # fmt: skip
    """The same grid without wind (first) and with winds of four directions and these strengths.

    A move goes where it should; then, with a probability that is its strength, the wind carries one
    cell further in its own direction, if no border is in the way. The corner opposite the start
    pays 1, each trap -1, and both end the episode; each step costs `cost`.
    """
    S = side * side
    bad = torch.from_numpy(1 + rng.choice(S - 2, size=traps, replace=False))
    paid = torch.zeros(S, dtype=torch.float64)
    paid[-1], paid[bad] = 1.0, -1.0
    start = torch.zeros(S, dtype=torch.float64)
    start[0] = 1.0
    ends = np.array([[moved(s, move, side) for move in MOVES] for s in range(S)])
    rows, out = torch.arange(S), []
    for wind, strength in [(0, 0.0)] + [(w, p) for w in range(4) for p in strengths]:
        P = torch.zeros(S, 4, S, dtype=torch.float64)
        for a in range(4):
            P[rows, a, torch.from_numpy(ends[:, a])] += 1.0 - strength
            P[rows, a, torch.from_numpy(ends[ends[:, a], wind])] += strength
        out.append(TabularMDP(P, P @ paid - cost, start, gamma, terminal=paid != 0))
    return out
