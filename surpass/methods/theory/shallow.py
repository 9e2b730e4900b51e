"""Learning one step of an episode after the other, from random actions behind it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.forms import Planner
from surpass.objectives.planning import known
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.random_suffix import Played

__all__ = ["Shallow", "shallow_iteration", "sqirl"]


class Shallow(NamedTuple):
    """A policy [H, S, A], of which the first `learned` steps are learned and the others random."""

    pi: Float[np.ndarray, "H S A"]
    learned: int


@part
def shallow_iteration(seen: Played, /, k: int = 1) -> Shallow:
    """Learn the step from which the episodes were random, t: the mean return-to-go at step
    t + k - 1 is Q_1 there, and k - 1 fitted steps back from it give Q_k at t, whose best action is
    taken. What was never tried counts as the worst that was."""
    t, pi = seen.learned, seen.pi.copy()
    if seen.n.sum() == 0:
        return Shallow(pi, 0)
    at = min(t + k, len(pi)) - 1
    tried = seen.n.sum(-1)
    q = _mean(seen.togo[at], tried[at])
    for h in reversed(range(t, at)):
        v = np.where(tried[h + 1].sum(-1) > 0, q.max(-1), q.min())
        q = _mean(seen.paid[h] + seen.n[h] @ v, tried[h])
    pi[t] = np.eye(q.shape[1])[q.argmax(1)]
    return Shallow(pi, t + 1)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    known = count > 0
    q = total / np.maximum(count, 1)
    return np.where(known, q, q[known].min())


@system("sqirl")
def sqirl(k: int = 1, horizon: int = 20) -> Planner:
    """Greedy in k steps of fitted Q-iteration on the values of random actions, one step of the
    episode at a time.

    This is the algorithm of the paper's theory, by tables and for each step of an episode; its deep
    form, a net for all later steps at once, is not here. Play it by
    `surpass.tasks.random_suffix.SuffixPlay`, which has so many episodes for each step.

    Args:
        k: steps of value iteration, counting the random policy's values as the first. horizon: of
            the episodes.
    """
    return Planner(shallow_iteration(k), known(), horizon + 1)
