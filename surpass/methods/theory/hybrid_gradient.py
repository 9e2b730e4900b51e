"""Natural policy gradients whose critic reads a log beside the policy's own episodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.hybrid_values import Both, hybrid_values
from surpass.objectives.planning import known
from surpass.parts import part
from surpass.registry import system

__all__ = ["Natural", "hnpg", "hybrid_step"]


class Natural(NamedTuple):
    """The policy [H, S, A], the softmax of `scores`, and the values that it moved along last."""

    pi: Float[np.ndarray, "H S A"]
    scores: Float[np.ndarray, "H S A"]
    f: Float[np.ndarray, "H S A"]


@part
def hybrid_step(
    both: Both, /, eta: float = 1.0, lam: float = 1.0, own: float = 1.0, phi: Any = None,
    ridge: float = 1e-6,
) -> Natural:  # fmt: skip
    """pi_{t+1}(a|s) ~ pi_t(a|s) exp(eta f_t(s, a)), the natural gradient of a softmax, f_t the
    `hybrid_values` of pi_t; the uniform policy at first.

    Offline Data Enhanced On-Policy Policy Gradient with Provable Guarantees (2023).
    """
    old = both.last if isinstance(both.last, Natural) else None
    scores, f = np.zeros_like(both.n), np.zeros_like(both.n)
    if old is not None:
        f = hybrid_values(both, old.pi, lam, own, phi, ridge)
        scores = old.scores + eta * f
    pi = np.exp(scores - scores.max(-1, keepdims=True))
    return Natural(pi / pi.sum(-1, keepdims=True), scores, f)


@system("hnpg")
def hnpg(
    eta: float = 1.0, lam: float = 1.0, own: float = 1.0, iterations: int = 100, phi: Any = None,
    ridge: float = 1e-6,
) -> Planner:  # fmt: skip
    """Natural gradients along values that fit the policy's own returns and Bellman's equation on a
    log.

    This is the algorithm of the paper's theory, for tables and log-linear policies of one set of
    features; its deep form, with nets and trust regions, is not here. Play it by
    `surpass.tasks.hybrid_play.HybridPlay`.

    Args:
        eta: the rate. lam: of the log's Bellman errors; 0 is the on-policy method. own: of the own
            returns; 0 learns values from the log only. iterations: batches of own episodes.
        phi: features [S, A, d], None for a table. ridge: of the regression.

    Raises:
        InputError: when eta is not positive, or both weights are 0 or one is negative.
    """
    if eta <= 0 or min(lam, own) < 0 or max(lam, own) == 0:
        raise InputError(
            f"eta is above 0, lam and own are not negative and one is above 0; got {eta}, {lam} "
            f"and {own}"
        )
    return Planner(hybrid_step(eta, lam, own, phi, ridge), known(), iterations)
