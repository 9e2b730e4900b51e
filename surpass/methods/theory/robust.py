"""Robust planning that learns its linear model as it goes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.forms import Planner
from surpass.objectives.planning import backup, breakpoints, choose, mirror_step
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.linear_mdp import Counts

__all__ = ["LinearModel", "dr_rpo", "linear_ridge", "robust_mirror"]


class LinearModel(NamedTuple):
    """At each step: `inverse` [H, d, d] of lam0 I + sum phi phi', `moved` [H, d, S] = sum phi
    1[s'],
    `theta` [H, d] the ridge estimate of rewards; phi [S, A, d], and the last policy."""

    phi: Float[np.ndarray, "S A d"]
    inverse: Float[np.ndarray, "H d d"]
    moved: Float[np.ndarray, "H d S"]
    theta: Float[np.ndarray, "H d"]
    last: Float[np.ndarray, "H S A"] | None


@part
def linear_ridge(seen: Counts, /, phi: Any = None, ridge: float = 1.0) -> LinearModel:
    """Ridge regression on the features of what was seen."""
    n = seen.n.sum(-1)
    gram = np.einsum("hsa,sai,saj->hij", n, phi, phi) + ridge * np.eye(phi.shape[-1])
    inverse = np.linalg.inv(gram)
    moved = np.einsum("sai,hsat->hit", phi, seen.n)
    theta = np.einsum("hij,saj,hsa->hi", inverse, phi, seen.paid)
    return LinearModel(phi, inverse, moved, theta, seen.last)


@part
def robust_mirror(
    model: LinearModel, /, radius: Any = 0.1, lam: float = 0.1, eta: float = 1.0,
    bonus: float = 0.1,
) -> Float[np.ndarray, "H S A"]:  # fmt: skip
    """Backward over the steps: the tv dual from regressions of min(V, a) at every level a of V, an
    elliptical bonus sum_i phi_i (inverse_ii)^(1/2), one mirror step from the last policy."""
    H, d = model.theta.shape
    S, A, _ = model.phi.shape
    reference, table = np.full((S, A), 1 / A), np.broadcast_to(radius, (H, d))
    v, out = np.zeros(S), []
    for h in reversed(range(H)):
        levels = np.unique(np.append(v, 0.0))
        z = model.inverse[h] @ model.moved[h] @ np.minimum(v[:, None], levels)
        nu = breakpoints(z, levels, table[h])
        doubt = bonus * model.phi @ np.sqrt(np.diag(model.inverse[h]))
        q = backup(model.phi, model.theta[h], nu, doubt, H - h)
        last = reference if model.last is None else model.last[h]
        pi = mirror_step(last, q, eta, reference, lam)
        v = choose(pi, q, reference, lam)
        out.append(pi)
    return np.stack(out[::-1])


@system("dr-rpo")
def dr_rpo(
    phi: Any, radius: Any = 0.1, lam: float = 0.1, eta: float = 1.0, bonus: float = 0.1,
    episodes: int = 300,
) -> Planner:  # fmt: skip
    """Policy optimization against the worst nature in a ball around each factor, optimistic where
    little was seen, regularized toward the uniform policy.

    Args:
        phi: features [S, A, d] on the simplex. radius: of the tv balls, one number or [H, d].
        lam: of the divergence. eta: of the mirror step; infinite for the value-based method.
        bonus: of the doubt. episodes: of `surpass.training.replan.replan`.
    """
    return Planner(robust_mirror(radius, lam, eta, bonus), linear_ridge(phi), episodes)
