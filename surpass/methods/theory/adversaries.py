"""No regret against losses that an adversary changes, where losses-to-go are linear in features."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.linear_losses import (
    dilated_bonus,
    estimated_loss,
    exponential_weights,
    inverse_covariance,
    log_barrier,
    magnitude_reduced,
    projections,
)
from surpass.objectives.planning import known
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.adversary import Seen, visits

__all__ = [
    "Leader", "adversarial_linear_q", "adversarial_log_barrier", "adversarial_uniform", "follow",
]  # fmt: skip

Kind = Literal["reduced", "barrier", "uniform"]


class Leader(NamedTuple):
    """A policy [H, S, A], and the sum [H, S, A] of what was estimated of all losses so far."""

    pi: Float[np.ndarray, "H S A"]
    total: Float[np.ndarray, "H S A"]


@part
def follow(
    seen: Seen, /, P: Any = None, phi: Any = None, kind: Kind = "reduced", eta: float = 0.05,
    gamma: float = 0.01, beta: float = 1e-3, explore: float = 0.0,
) -> Leader:  # fmt: skip
    """Add the estimate of the last episode's losses, less a bonus for what is seldom seen, and lead
    on the sum."""
    H, S, A = phi.shape[:3]
    if seen.last is None:
        return Leader(np.full((H, S, A), 1 / A), np.zeros((H, S, A)))
    pi, total = seen.last
    met = visits(P, pi)
    found, widths = np.zeros((H, S, A)), np.zeros((H, S, A))
    for h in range(H):
        inverse = inverse_covariance(phi[h], met[h], gamma)
        widths[h] = np.einsum("sai,ij,saj->sa", phi[h], inverse, phi[h])
        x = projections(phi[h], inverse, phi[h, seen.state[h], seen.action[h]])
        found[h] = estimated_loss(x, seen.togo[h])
        if kind == "reduced":
            below = np.minimum(projections(phi[h], inverse, phi[h]), 0.0)
            expected = np.einsum("sauv,uv->sa", below, met[h])
            found[h] = magnitude_reduced(x, seen.togo[h], expected, H)
    total = total + found - (dilated_bonus(widths, P, pi, beta) if beta else 0.0)
    lead = log_barrier if kind == "barrier" else exponential_weights
    return Leader((1 - explore) * lead(total, eta) + explore / A, total)


def _leader(P: Any, phi: Any, episodes: int, **how: Any) -> Planner:
    if P.ndim != 4 or phi.ndim != 4 or P.shape[:3] != phi.shape[:3]:
        raise InputError(
            f"moves [H, S, A, S] and features [H, S, A, d] of the same H, S and A are wanted, got "
            f"{P.shape} and {phi.shape}"
        )
    return Planner(follow(P, phi, **how), known(), episodes)


@system("adversarial-linear-q")
def adversarial_linear_q(
    P: Any, phi: Any, eta: float = 0.05, gamma: float = 0.01, beta: float = 1e-3,
    episodes: int = 1000,
) -> Planner:  # fmt: skip
    """Exponential weights on estimates whose negative part is removed, so that they are never below
    -H / sqrt(gamma), with a dilated bonus.

    Moves are known, in place of a simulator: covariances and the mean of the negative part are
    exact, where the paper draws them.

    Args:
        P: moves [H, S, A, S]. phi: features [H, S, A, d]. eta: of the weights.
        gamma: of the covariance. beta: of the bonus. episodes: of `training.replan.replan`.
    """
    return _leader(P, phi, episodes, kind="reduced", eta=eta, gamma=gamma, beta=beta)


@system("adversarial-linear-q:log-barrier")
def adversarial_log_barrier(
    P: Any, phi: Any, eta: float = 0.05, gamma: float = 0.01, beta: float = 1e-3,
    episodes: int = 1000,
) -> Planner:  # fmt: skip
    """A log barrier in place of the entropy, which bears estimates of any sign as they are."""
    return _leader(P, phi, episodes, kind="barrier", eta=eta, gamma=gamma, beta=beta)


@system("adversarial-linear-q:uniform")
def adversarial_uniform(
    P: Any, phi: Any, eta: float = 0.05, gamma: float = 0.01, explore: float = 0.1,
    episodes: int = 1000,
) -> Planner:  # fmt: skip
    """The older way: plain exponential weights, and a share of uniform actions instead of a
    bonus."""
    return _leader(P, phi, episodes, kind="uniform", eta=eta, gamma=gamma, beta=0.0,
                   explore=explore)  # fmt: skip
