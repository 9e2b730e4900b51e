"""A slippery grid with a goal and traps, whose rewards are labeled for some rows only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.tasks.tabular import TabularMDP

__all__ = ["MOVES", "Labeled", "label_rows", "moved", "random_rows", "trap_grid"]

MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


@dataclass(frozen=True)
class Labeled:
    """Rows of (state, action, next state), each [n], and the rewards seen, NaN where none was."""

    state: np.ndarray
    action: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray

    def sums(self, mdp: TabularMDP) -> tuple[Float[Tensor, "S A"], Float[Tensor, "S A"]]:
        """Per (s, a): the sum of labeled rewards, and how many there are."""
        known = ~np.isnan(self.reward)
        at = (self.state * mdp.n_actions + self.action)[known]
        size = mdp.n_states * mdp.n_actions
        total = np.bincount(at, self.reward[known], minlength=size)
        shape = (mdp.n_states, mdp.n_actions)
        count = np.bincount(at, minlength=size).astype(np.float64)
        return torch.from_numpy(total).view(shape), torch.from_numpy(count).view(shape)

    def moves(self, mdp: TabularMDP) -> Float[Tensor, "S A S"]:
        """How often each next state followed."""
        S, A = mdp.n_states, mdp.n_actions
        at = (self.state * A + self.action) * S + self.next_state
        counts = np.bincount(at, minlength=S * A * S).astype(np.float64)
        return torch.from_numpy(counts).view(S, A, S)

    def with_rows(self, other: Labeled) -> Labeled:
        """Both logs, one after the other."""
        return Labeled(*(
            np.concatenate((getattr(self, f), getattr(other, f)))
            for f in ("state", "action", "next_state", "reward")
        ))  # fmt: skip


def moved(cell: int, move: tuple[int, int], side: int) -> int:
    """Where a move (rows, columns) from a cell of a square ends; borders hold."""
    y, x = divmod(cell, side)
    return min(max(y + move[0], 0), side - 1) * side + min(max(x + move[1], 0), side - 1)


def trap_grid(
    rng: np.random.Generator, side: int = 6, slip: float = 0.15, traps: int = 5,
    gamma: float = 0.95,
) -> TabularMDP:  # fmt: skip
    """Start in one corner, +1 for every step that ends in the opposite one, -1 for one that ends in
    a trap; with probability `slip` the move is a random one. Walls hold."""
    S = side * side
    goal = S - 1
    bad = 1 + rng.choice(S - 2, size=traps, replace=False)
    P = torch.zeros(S, 4, S, dtype=torch.float64)
    for s in range(S):
        ends = [moved(s, move, side) for move in MOVES]
        for a in range(4):
            P[s, a, ends[a]] += 1 - slip
            for end in ends:
                P[s, a, end] += slip / 4
    paid = torch.zeros(S, dtype=torch.float64)
    paid[goal] = 1.0
    paid[torch.from_numpy(bad)] = -1.0
    start = torch.zeros(S, dtype=torch.float64)
    start[0] = 1.0
    return TabularMDP(P, P @ paid, start, gamma)


def _draw(mdp: TabularMDP, s: np.ndarray, a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edges = mdp.P.numpy()[s, a].cumsum(1)
    return np.minimum((rng.random((len(s), 1)) >= edges).sum(1), mdp.n_states - 1)


def label_rows(
    mdp: TabularMDP, n: int, rng: np.random.Generator, noise: float = 0.5, near: float = 0.7
) -> Labeled:
    """n labeled rows: a share `near` in the half of the states where the start is, actions optimal
    half of the time, rewards with noise."""
    best = mdp.solve().pi.argmax(1).numpy()
    half = mdp.n_states // 2
    s = np.where(
        rng.random(n) < near, rng.integers(half, size=n), half + rng.integers(half, size=n)
    )
    a = np.where(rng.random(n) < 0.5, best[s], rng.integers(mdp.n_actions, size=n))
    reward = mdp.r.numpy()[s, a] + noise * rng.normal(size=n)
    return Labeled(s, a, _draw(mdp, s, a, rng), reward)


def random_rows(mdp: TabularMDP, n: int, rng: np.random.Generator) -> Labeled:
    """n rows without rewards, states and actions uniform."""
    s, a = rng.integers(mdp.n_states, size=n), rng.integers(mdp.n_actions, size=n)
    return Labeled(s, a, _draw(mdp, s, a, rng), np.full(n, np.nan))
