"""Episodes that follow a policy up to a step and then act at random, counted; and sticky rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from surpass.tasks.draws import drawn
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.trap_grid import MOVES, moved

__all__ = ["Played", "SuffixPlay", "sticky_room"]


class Played(NamedTuple):
    """What the last episodes saw at each step: transitions `n` [H, S, A, S], sums of rewards `paid`
    and of returns-to-go `togo` [H, S, A]; the policy [H, S, A] that they followed, whose first
    `learned` steps were not random."""

    n: Float[np.ndarray, "H S A S"]
    paid: Float[np.ndarray, "H S A"]
    togo: Float[np.ndarray, "H S A"]
    pi: Float[np.ndarray, "H S A"]
    learned: int


@dataclass
class SuffixPlay:
    """Where a plan with `pi` [H, S, A] and `learned` is carried out, `episodes` at a time, for
    `surpass.training.replan.replan`; keeps those of the last plan."""

    mdp: TabularMDP
    episodes: int

    def __post_init__(self) -> None:
        assert self.mdp.horizon is not None
        self.shape = (self.mdp.horizon, self.mdp.n_states, self.mdp.n_actions)
        even = np.full(self.shape, 1 / self.mdp.n_actions)
        nothing = np.zeros(self.shape)
        self.last = Played(np.zeros((*self.shape, self.mdp.n_states)), nothing, nothing, even, 0)

    def records(self) -> Played:
        """What the last plan saw."""
        return self.last

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """The mean return of so many episodes."""
        P, r, H = self.mdp.P.numpy(), self.mdp.r.numpy(), self.shape[0]
        n, paid, togo = np.zeros((*self.shape, self.shape[1])), np.zeros(self.shape), None
        s = rng.choice(self.shape[1], size=self.episodes, p=self.mdp.d0.numpy())
        steps, rewards = [], np.zeros((H, self.episodes))
        for h in range(H):
            a = drawn(plan.pi[h][s], rng)
            s2 = drawn(P[s, a], rng)
            rewards[h] = (r[h] if r.ndim == 3 else r)[s, a]
            np.add.at(n[h], (s, a, s2), 1)
            np.add.at(paid[h], (s, a), rewards[h])
            steps.append((s, a))
            s = s2
        togo, ahead = np.zeros(self.shape), rewards[::-1].cumsum(0)[::-1]
        for h, at in enumerate(steps):
            np.add.at(togo[h], at, ahead[h])
        self.last = Played(n, paid, togo, plan.pi, plan.learned)
        return float(ahead[0].mean())


def sticky_room(
    rng: np.random.Generator, side: int = 5, walls: float = 0.2, sticky: float = 0.25,
    horizon: int = 20, lures: int = 2,
) -> TabularMDP:  # fmt: skip
    """A room with walls in it: a goal somewhere pays 1, `lures` elsewhere 0.1 to 0.5, and each ends
    the episode; with probability `sticky` the last move is made again instead of the chosen one.

    States are cells times last moves (none at first), S = side^2 x 5. Rooms whose goal cannot be
    reached within half of the horizon are drawn again.
    """
    cells = side * side
    while True:
        wall = rng.random(cells) < walls
        free = np.flatnonzero(~wall)
        if len(free) < lures + 2:
            continue
        start, goal, *bait = rng.choice(free, lures + 2, replace=False)
        ends = _ends(side, wall)
        if _distance(ends, start, goal) <= horizon // 2:
            break
    paid = np.zeros(cells)
    paid[goal] = 1.0
    paid[bait] = rng.uniform(0.1, 0.5, lures)
    S = cells * 5
    P = np.zeros((S, 4, S))
    for cell in range(cells):
        for last in range(5):
            for a in range(4):
                kept = sticky if last < 4 else 0.0
                P[cell * 5 + last, a, ends[cell, a] * 5 + a] += 1 - kept
                if kept:
                    P[cell * 5 + last, a, ends[cell, last] * 5 + last] += kept
    pays, d0 = np.repeat(paid, 5), np.zeros(S)
    d0[start * 5 + 4] = 1.0
    return TabularMDP(
        torch.from_numpy(P), torch.from_numpy(P @ pays), torch.from_numpy(d0), horizon=horizon,
        terminal=torch.from_numpy(pays > 0),
    )  # fmt: skip


def _ends(side: int, wall: np.ndarray) -> np.ndarray:
    """Where each move from each cell ends; walls and borders hold, [cells, 4]."""
    out = np.zeros((side * side, 4), dtype=int)
    for cell in range(side * side):
        for a, move in enumerate(MOVES):
            to = moved(cell, move, side)
            out[cell, a] = cell if wall[to] else to
    return out


def _distance(ends: np.ndarray, start: int, goal: int) -> float:
    seen, at, steps = {start}, {start}, 0
    while at and goal not in at:
        at = {int(e) for cell in at for e in ends[cell]} - seen
        seen, steps = seen | at, steps + 1
    return steps if at else np.inf
