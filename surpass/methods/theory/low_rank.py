"""Q-values of a simulator from a few rows and columns."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from surpass.forms import Planner
from surpass.objectives.completion import from_anchors
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.generative_model import GenerativeModel

__all__ = ["anchored_iteration", "low_rank_q"]


@part
def anchored_iteration(
    model: GenerativeModel, /, anchors: int = 8, rank: int = 3, rounds: int = 30,
    samples: int = 5, growth: float = 1.0, nets: tuple[int, ...] = (1,), seed: int = 0,
) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """Q [S, A] after `rounds` of: look ahead, Q(s, a) = r + gamma mean of V over `samples` next
    states (times `growth` each round), at random anchor rows and columns only; fill in the rest;
    V = max Q.

    Without anchors (0) every pair is asked. `nets` are strides of the states that are asked in the
    first rounds, the last one from then on; other states take the nearest one's values.
    """
    rng, (S, A) = np.random.default_rng(seed), model.r.shape
    low, high = model.r.min() / (1 - model.gamma), model.r.max() / (1 - model.gamma)
    v, q = np.zeros(S), np.zeros((S, A))
    for t in range(rounds):
        points, nearest = model.net(nets[min(t, len(nets) - 1)])
        n, k = math.ceil(samples * growth**t), min(anchors, len(points), A)
        asked = np.full((len(points), A), k == 0)
        row, column = (rng.choice(m, k, replace=False) for m in (len(points), A))
        asked[row], asked[:, column] = True, True
        i, a = asked.nonzero()
        seen = np.zeros(asked.shape)
        seen[i, a] = model.r[points[i], a] + model.gamma * v[
            model.sample(points[i], a, n, rng)].mean(1)  # fmt: skip
        if k:
            known = seen[:, column], seen[row], seen[np.ix_(row, column)]
            seen = from_anchors(*known, rank).clip(low, high)
        v, q = seen[nearest].max(1), seen[nearest]
    return q


@system("low-rank-q")
def low_rank_q(
    anchors: int = 8, rank: int = 3, rounds: int = 30, samples: int = 5, growth: float = 1.0,
    nets: tuple[int, ...] = (1,), seed: int = 0,
) -> Planner:  # fmt: skip
    """Value iteration that asks a simulator at anchor rows and columns and completes the matrix.

    Call `solve(model)` with a `surpass.tasks.generative_model.GenerativeModel`.
    """
    return Planner(anchored_iteration(anchors, rank, rounds, samples, growth, nets, seed))
