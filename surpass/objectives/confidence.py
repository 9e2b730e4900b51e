"""Values that are surely too low or too high, from counts of a finite-horizon problem.

Rewards lie in [0, 1]. A pair that was not seen has a bonus of the horizon. `iota` is
log(H S A / delta).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Bounds", "Tables", "bernstein", "greedy_policy", "hoeffding", "tables", "variance"]


class Tables(NamedTuple):
    """What counts say: `P` [H, S, A, S] (zero where nothing was seen), mean rewards `r` [H, S, A],
    `n` [H, S, A], and `iota`."""

    P: Float[np.ndarray, "H S A S"]
    r: Float[np.ndarray, "H S A"]
    n: Float[np.ndarray, "H S A"]
    iota: float


class Bounds(NamedTuple):
    """A policy [H, S, A] and values [H + 1, S] below and above."""

    pi: Float[np.ndarray, "H S A"]
    low: Float[np.ndarray, "H1 S"]
    high: Float[np.ndarray, "H1 S"]


def tables(
    n: Float[np.ndarray, "H S A S"], paid: Float[np.ndarray, "H S A"], delta: float = 0.1
) -> Tables:
    """Estimates from counts of transitions and sums of rewards."""
    seen = n.sum(-1)
    most = np.maximum(seen, 1)
    return Tables(n / most[..., None], paid / most, seen, float(np.log(seen.size / delta)))


def variance(P: Float[np.ndarray, "... S"], v: Float[np.ndarray, "S"]) -> Float[np.ndarray, "..."]:
    """Var of v(s') under every row of P."""
    return np.maximum(P @ v**2 - (P @ v) ** 2, 0.0)


def hoeffding(n: Float[np.ndarray, "S A"], H: int, iota: float, c: float) -> np.ndarray:
    """c (H^2 iota / n)^(1/2), at most H."""
    return np.where(n > 0, np.minimum(c * H * np.sqrt(iota / np.maximum(n, 1)), H), H)


def bernstein(
    P: Float[np.ndarray, "S A S"], v: Float[np.ndarray, "S"], n: Float[np.ndarray, "S A"], H: int,
    iota: float, c: float,
) -> np.ndarray:  # fmt: skip
    """c ((Var_P(v) iota / n)^(1/2) + H iota / n), with n at least 1."""
    m = np.maximum(n, 1)
    return c * (np.sqrt(variance(P, v) * iota / m) + H * iota / m)


def greedy_policy(q: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
    """The best action of every state, the first of equals."""
    return np.eye(q.shape[1])[q.argmax(1)]
