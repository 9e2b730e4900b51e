"""Values that are surely too low or too high, from counts of a finite-horizon problem.

Rewards lie in [0, 1]. A pair that was not seen has a bonus of the horizon. `iota` is
log(H S A / delta).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from surpass.parts import part

__all__ = [
    "Bounds", "Pieces", "Seen", "Tables", "bernstein", "greedy_policy", "hoeffding", "offline_pays",
    "optimistic", "pessimistic", "reference_advantage", "tables", "variance",
]  # fmt: skip


class Seen(Protocol):
    """What was seen at each step: transitions `n` [H, S, A, S], and rewards in all `paid`
    [H, S, A]."""

    @property
    def n(self) -> np.ndarray: ...
    @property
    def paid(self) -> np.ndarray: ...


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


class Pieces(NamedTuple):
    """Independent logs of one policy: `ref` for a reference value, `zero` for its expectation, and
    one for each step."""

    ref: Seen
    zero: Seen
    steps: tuple[Seen, ...]


@part
def pessimistic(
    seen: Seen, /, c: float = 0.2, delta: float = 0.1,
    end: Float[np.ndarray, "S"] | None = None,
) -> Bounds:  # fmt: skip
    """VI-LCB: Q = max(0, r + P V - c (H^2 iota / n)^(1/2)), V = max Q; `end` are values after the
    last step."""
    t = tables(seen.n, seen.paid, delta)
    H, S, _ = t.n.shape
    low = np.zeros((H + 1, S))
    low[H] = 0.0 if end is None else end
    pi = []
    for h in reversed(range(H)):
        q = np.maximum(t.r[h] + t.P[h] @ low[h + 1] - hoeffding(t.n[h], H, t.iota, c), 0.0)
        pi.append(greedy_policy(q))
        low[h] = q.max(1)
    return Bounds(np.stack(pi[::-1]), low, np.full_like(low, np.inf))


@part
def reference_advantage(
    seen: Pieces, /, c: float = 0.2, delta: float = 0.1,
    end: Float[np.ndarray, "S"] | None = None,
) -> Bounds:  # fmt: skip
    """PEVI-Adv: values above a pessimistic reference value, whose expectation is taken from another
    log, and whose difference, of little variance, from a third:

        Q = r + P0 Vref - b0 + P1 (V - Vref) - b1,  V = max(max Q, Vref).
    """
    base = pessimistic(c, delta, end)(seen.ref)
    zero = tables(seen.zero.n, seen.zero.paid, delta)
    H, S, _ = zero.n.shape
    low, pi = base.low.copy(), base.pi.copy()
    for h in reversed(range(H)):
        mine = seen.steps[h]
        P1, r1, n1, iota = tables(mine.n, mine.paid, delta)
        ref, gain = base.low[h + 1], low[h + 1] - base.low[h + 1]
        q = (
            np.where(zero.n[h] > 0, zero.r[h], r1[h])
            + zero.P[h] @ ref - bernstein(zero.P[h], ref, zero.n[h], H, iota, c)
            + P1[h] @ gain - bernstein(P1[h], gain, n1[h], H, iota, c)
        )  # fmt: skip
        better = q.max(1) > low[h]
        pi[h] = np.where(better[:, None], greedy_policy(q), pi[h])
        low[h] = np.maximum(low[h], q.max(1))
    return Bounds(pi, low, base.high)


@part
def optimistic(seen: Seen, /, c: float = 0.2, delta: float = 0.1) -> Bounds:
    """UCBVI: greedy on values above, with Bernstein's bonus and a share of how far both bounds are
    apart; values below go along."""
    t = tables(seen.n, seen.paid, delta)
    H, S, _ = t.n.shape
    low, high, pi = np.zeros((H + 1, S)), np.zeros((H + 1, S)), []
    for h in reversed(range(H)):
        middle, apart = (high[h + 1] + low[h + 1]) / 2, high[h + 1] - low[h + 1]
        bonus = bernstein(t.P[h], middle, t.n[h], H, t.iota, c) + c * t.P[h] @ apart / H
        bonus = np.where(t.n[h] > 0, bonus, H)
        up = np.minimum(t.r[h] + t.P[h] @ high[h + 1] + bonus, H - h)
        down = np.maximum(t.r[h] + t.P[h] @ low[h + 1] - bonus, 0.0)
        choice = greedy_policy(up)
        pi.append(choice)
        high[h], low[h] = (choice * up).sum(1), (choice * down).sum(1)
    return Bounds(np.stack(pi[::-1]), low, high)


def offline_pays(concentration: float, actions: int) -> bool:
    """Whether data of the reference are cheaper than exploring: any learner needs at least about
    H^3 S min(C*, A) / eps^2 episodes, with C* = max d*(s, a) / d_reference(s, a)."""
    return concentration < actions
