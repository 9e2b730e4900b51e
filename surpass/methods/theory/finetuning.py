"""A good reference policy beside a problem that may be played: learn pessimistically from what the
reference does, explore without it, or both."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.forms import Planner
from surpass.objectives.confidence import Bounds, bernstein, greedy_policy, hoeffding, tables
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular_play import TabularPlay, count
from surpass.training.replan import replan

__all__ = [
    "Pieces", "finetuning_explored", "finetuning_pessimistic", "hybrid", "offline_pays",
    "optimistic", "pessimistic", "policy_finetuning", "reference_advantage", "split",
]  # fmt: skip


class Pieces(NamedTuple):
    """Independent logs of one policy: `ref` for a reference value, `zero` for its expectation, and
    one for each step."""

    ref: Counts
    zero: Counts
    steps: tuple[Counts, ...]


@part
def pessimistic(
    seen: Counts, /, c: float = 0.2, delta: float = 0.1,
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
def optimistic(seen: Counts, /, c: float = 0.2, delta: float = 0.1) -> Bounds:
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


def split(play: TabularPlay, pi: np.ndarray, episodes: int, rng: np.random.Generator) -> Pieces:
    """Play a policy: a third each for the reference value, its expectation, and all steps."""
    H, third = play.mdp.horizon or 1, episodes // 3
    logs = [count(play.mdp, pi, n, rng) for n in (third, third, *[max(third // H, 1)] * H)]
    return Pieces(logs[0], logs[1], tuple(logs[2:]))


def hybrid(
    play: TabularPlay, pi: np.ndarray, at: int, episodes: tuple[int, int], c: float = 0.2,
    delta: float = 0.1, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """HOOVI, for a policy that is good for the first `at` steps only: follow it so far and explore
    from there (the first `episodes`); then learn the first steps from its data (the others),
    toward the values below that exploring left. Gives the concatenated policy [H, S, A]."""
    rng = np.random.default_rng(seed)
    start = TabularPlay(play.mdp, pi, at)
    replan(Planner(optimistic(c, delta), _whole(), episodes[0]), start, seed=seed)
    later = optimistic(c, delta)(start.records())
    pieces = split(play, pi, episodes[1], rng)

    def head(seen: Counts) -> Counts:
        return Counts(seen.n[:at], seen.paid[:at], None)

    cut = Pieces(head(pieces.ref), head(pieces.zero), tuple(map(head, pieces.steps[:at])))
    first = reference_advantage(c, delta, later.low[at])(cut)
    return np.concatenate([first.pi, later.pi[at:]])


def offline_pays(concentration: float, actions: int) -> bool:
    """Whether data of the reference are cheaper than exploring: any learner needs at least about
    H^3 S min(C*, A) / eps^2 episodes, with C* = max d*(s, a) / d_reference(s, a)."""
    return concentration < actions


@part
def _whole(seen: Counts, /) -> Counts:
    return seen


@system("policy-finetuning")
def policy_finetuning(c: float = 0.2, delta: float = 0.1) -> Planner:
    """The offline reduction with a reference value: solve what `split` of the reference's episodes
    gives. `hybrid` combines it with exploring."""
    return Planner(reference_advantage(c, delta))


@system("policy-finetuning:lcb")
def finetuning_pessimistic(c: float = 0.2, delta: float = 0.1) -> Planner:
    """The offline reduction by plain pessimism, from all episodes at once."""
    return Planner(pessimistic(c, delta))


@system("policy-finetuning:ucbvi")
def finetuning_explored(c: float = 0.2, delta: float = 0.1, episodes: int = 1000) -> Planner:
    """Exploring without the reference."""
    return Planner(optimistic(c, delta), _whole(), episodes)
