"""How hard a problem is for learners that start from random actions: how many steps of value
iteration on the random policy's values solve it, and by how much.

Times are indexed: tables are [H, S, A], h the step of an episode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from surpass.errors import InputError

__all__ = ["Horizon", "effective_horizon", "reachable", "shallow_values"]

_TIE = 1e-9


class Horizon(NamedTuple):
    """The effective horizon k + log_A(1 / gap^2), at the best k; `k` and `gap` (in parts of the
    range of returns) that it comes from. Infinite where no k up to the horizon solves it."""

    value: float
    k: int
    gap: float


def shallow_values(
    P: Float[np.ndarray, "S A S"], r: Float[np.ndarray, "H S A"], k: int
) -> Float[np.ndarray, "H S A"]:
    """Q_k by k - 1 steps of value iteration on the values of acting at random:

    Q_1(h, s, a) = r + E[mean_a' Q_1(h + 1, s', a')],
    Q_i+1(h, s, a) = r + E[max_a' Q_i(h + 1, s', a')]
    """
    q = _backward(P, r, lambda after: after.mean(-1))
    for _ in range(k - 1):
        ahead = np.concatenate([q[1:].max(-1), np.zeros((1, r.shape[1]))])
        q = r + np.einsum("sat,ht->hsa", P, ahead)
    return q


def _backward(
    P: np.ndarray, r: np.ndarray, worth: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    q, v = np.zeros_like(r), np.zeros(r.shape[1])
    for h in reversed(range(len(r))):
        q[h] = r[h] + P @ v
        v = worth(q[h])
    return q


def reachable(
    P: Float[np.ndarray, "S A S"], d0: Float[np.ndarray, "S"], allowed: Bool[np.ndarray, "H S A"]
) -> Bool[np.ndarray, "H S"]:
    """Which states some policy of the allowed actions can be in at each step."""
    out, here = [], d0 > 0
    for step in allowed:
        out.append(here)
        here = (P[here] * step[here][..., None]).sum((0, 1)) > 0
    return np.stack(out)


def effective_horizon(
    P: Float[np.ndarray, "S A S"], r: Float[np.ndarray, "H S A"], d0: Float[np.ndarray, "S"],
    most: int | None = None,
) -> Horizon:  # fmt: skip
    """The least k + log_A(1 / gap_k^2) over the k for which every policy that is greedy in Q_k is
    optimal; gap_k is the least distance, in Q_k, of an action that is not greedy from one that is,
    over the states that such policies reach.

    The Effective Horizon Explains Deep RL Performance in Stochastic Environments (2024). Returns
    are scaled to [0, 1] by the largest and the least that any policy may have.

    Args:
        most: the largest k that is tried, the horizon by default.

    Raises:
        InputError: when all returns are the same.
    """
    H, A = r.shape[0], r.shape[2]
    best = _backward(P, r, lambda after: after.max(-1))
    span = float(d0 @ (best[0].max(-1) - _backward(P, r, lambda after: after.min(-1))[0].min(-1)))
    if span <= _TIE:
        raise InputError("every policy has the same return here: nothing can be hard")
    good = best >= best.max(-1, keepdims=True) - _TIE
    found = Horizon(math.inf, 0, 0.0)
    for k in range(1, (most or H) + 1):
        q = shallow_values(P, r, k)
        top = q.max(-1, keepdims=True)
        greedy = q >= top - _TIE
        seen = reachable(P, d0, greedy)
        if (greedy & ~good)[seen].any():
            continue
        away = (top - q)[seen & ~greedy.all(-1)]
        gap = float(away[away > _TIE].min()) / span if away.size else 1.0
        value = k + math.log(1.0 / min(gap, 1.0) ** 2, A)
        if value < found.value:
            found = Horizon(value, k, gap)
    return found
