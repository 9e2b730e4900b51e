"""An agent that walks through rooms with hazards, and a helper that can be asked for a step."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import Transitions
from surpass.tasks.tabular import TabularMDP

__all__ = ["Rooms"]

_MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


class Rooms:
    """An 8 x 8 grid from the corner (0, 0) to (7, 7). Action 0 lets the agent take its own step, 1
    asks the helper for it.

    Toward the goal both take shortest paths; the agent errs into a random neighbor with probability
    `careless` at junctions (a sixth of the cells) and 0.05 elsewhere, the helper with 0.02. Hazards
    end the episode. A pit, entered by mistake, is never left: no help helps there.

    `mdp` has a reward of 1 for reaching the goal within the horizon; the last two states are
    success
    and failure. `features` [S, 4] are row, column, hazards around, and whether it is a junction.
    """

    def __init__(self, seed: int = 0, size: int = 8, horizon: int = 40, careless: float = 0.8):
        rng = np.random.default_rng(seed)
        cells = [(i, j) for i in range(size) for j in range(size)]
        while True:
            hazard = {c for c in cells if rng.random() < 0.1} - {(0, 0), (size - 1, size - 1)}
            far = _distances(size, hazard)
            if (0, 0) in far:
                break
        pit = {c for c in cells if c not in far and c not in hazard}
        pit |= {c for c in far if rng.random() < 0.2} - {(0, 0), (size - 1, size - 1)}
        far = _distances(size, hazard | pit)
        while (0, 0) not in far:
            pit.discard(sorted(pit)[int(rng.integers(len(pit)))])
            far = _distances(size, hazard | pit)
        self.size, self.horizon, self.hazard, self.pit = size, horizon, hazard, pit
        junction = {c for c in cells if rng.random() < 1 / 6}
        S = size * size + 2
        P = np.zeros((S, 2, S))
        for s, c in enumerate(cells):
            if c in hazard or c == (size - 1, size - 1):
                continue
            near = _near(c, size)
            for a, wrong in enumerate((careless if c in junction else 0.05, 0.02)):
                if c in pit or c not in far:
                    P[s, a, s] = 1.0
                    continue
                best = min(near, key=lambda n: far.get(n, 10**6))
                P[s, a, cells.index(best)] += 1 - wrong
                for n in near:
                    P[s, a, cells.index(n)] += wrong / len(near)
        success, failure = S - 2, S - 1
        ends = {size * size - 1: success, **{cells.index(h): failure for h in hazard}}
        for s, to in ends.items():  # what would enter an end enters its absorbing state
            P[:, :, to] += P[:, :, s]
            P[:, :, s] = 0.0
        for s in (*ends, success, failure):
            P[s] = 0.0
            P[s, :, s] = 1.0
        start = np.zeros(S)
        start[0] = 1.0
        end = torch.zeros(S, dtype=torch.bool)
        end[[*ends, success, failure]] = True
        reward = torch.from_numpy(P[:, :, success]).clone()
        self.mdp = TabularMDP(
            torch.from_numpy(P), reward, torch.from_numpy(start), horizon=horizon, terminal=end
        )
        around = [sum(n in hazard for n in _near(c, size)) for c in cells]
        rows = [[*c, k, float(c in junction)] for c, k in zip(cells, around, strict=True)]
        self.features: Float[Tensor, "S 4"] = torch.tensor([*rows, [0.0] * 4, [0.0] * 4])

    def log(self, episodes: int, asking: float = 0.3, seed: int = 0) -> Transitions:
        """Episodes in which help is asked at random; the reward is 1 for reaching the goal."""
        pi = torch.tensor([1 - asking, asking], dtype=torch.float64)
        out = self.mdp.transitions(
            pi.expand(self.mdp.n_states, 2), episodes,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        assert out.extras is not None
        out.reward = (out.extras["next_state"] == self.mdp.n_states - 2).to(out.reward.dtype)
        return out


def _near(c: tuple[int, int], size: int) -> list[tuple[int, int]]:
    found = [(c[0] + i, c[1] + j) for i, j in _MOVES]
    return [n for n in found if 0 <= n[0] < size and 0 <= n[1] < size]


def _distances(size: int, blocked: set[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Steps to the goal around what is blocked."""
    far, edge = {(size - 1, size - 1): 0}, [(size - 1, size - 1)]
    while edge:
        c = edge.pop(0)
        for n in _near(c, size):
            if n not in far and n not in blocked:
                far[n] = far[c] + 1
                edge.append(n)
    return far
