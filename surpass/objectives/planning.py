"""One backup and one mirror step for planning with tables and linear models: what nature may do to
the next state, what is added for doubt, and how actions are chosen.

A linear model has P(.|s, a) = sum_i phi_i(s, a) mu_i(.) with phi on the simplex; a table is the
case
of one factor per (s, a).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from surpass.errors import InputError
from surpass.parts import part

__all__ = [
    "Nature", "backup", "breakpoints", "choose", "divergence", "known", "mirror_step", "worst_mean",
]  # fmt: skip

Nature = Literal["expect", "tv", "kl", "chi2"]


@part
def known(seen: Any, /) -> Any:
    """What was seen, as it is: the model of a planner whose `solve` reads records."""
    return seen


def worst_mean(
    mu: Float[np.ndarray, "d S"], v: Float[np.ndarray, "S"], radius: Float[np.ndarray, "d"],
    nature: Nature = "tv",
) -> Float[np.ndarray, "d"]:  # fmt: skip
    """nu_i = inf of E[v] over distributions in the ball of radius_i around mu_i, by its dual:

        tv (half the L1 distance):  max_a E[min(v, a)] - radius (a - min v)
        kl:                         max_b -b log E[exp(-v / b)] - b radius
        chi2 (E[(p / mu - 1)^2]):   max_a E[min(v, a)] - (radius Var(min(v, a)))^(1/2)

    The first is solved exactly (the maximum lies at a value of v), the others to about 1e-8. The
    least value of all states counts as reachable under tv.

    Raises:
        InputError: for another ball, or a negative radius.
    """
    if (np.asarray(radius) < 0).any():
        raise InputError("the radius of a ball is not negative")
    if nature == "expect":
        return mu @ v
    if nature == "tv":
        low = v.min()
        levels = np.unique(v)
        clipped = mu @ np.minimum(v[:, None], levels)  # [d, levels]
        return (clipped - np.asarray(radius)[:, None] * (levels - low)).max(1)
    if nature not in ("kl", "chi2"):
        raise InputError(f"nature is expect, tv, kl or chi2, not {nature!r}")
    dual = _kl if nature == "kl" else _chi2
    return np.array([dual(m, v, r) for m, r in zip(mu, np.asarray(radius), strict=True)])


def _kl(mu: np.ndarray, v: np.ndarray, radius: float) -> float:
    on = mu > 0
    low = float(v[on].min())
    if radius <= 0:
        return float(mu @ v)

    def dual(log_b: float) -> float:
        b = np.exp(log_b)
        return float(b * np.log(mu[on] @ np.exp(-(v[on] - low) / b)) + b * radius)

    found = minimize_scalar(dual, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10})
    return max(low - float(found.fun), low)  # type: ignore[attr-defined]


def _chi2(mu: np.ndarray, v: np.ndarray, radius: float) -> float:
    def dual(a: float) -> float:
        x = np.minimum(v, a)
        mean = float(mu @ x)
        return -(mean - np.sqrt(radius * max(float(mu @ x**2) - mean**2, 0.0)))

    levels = np.unique(v)
    best = -min(dual(a) for a in levels)
    for a, b in pairwise(levels):
        found = minimize_scalar(dual, bounds=(a, b), method="bounded", options={"xatol": 1e-10})
        best = max(best, -float(found.fun))  # type: ignore[attr-defined]
    return best


def breakpoints(
    z: Float[np.ndarray, "d L"], levels: Float[np.ndarray, "L"], radius: Float[np.ndarray, "d"]
) -> Float[np.ndarray, "d"]:
    """The tv dual from estimates z_i(a) of E[min(v, a)] at the levels a of v (0 among them, which
    counts as the least value)."""
    return (z - np.asarray(radius)[:, None] * levels).max(1)


def backup(
    phi: Float[np.ndarray, "S A d"], reward: Float[np.ndarray, "d"], nu: Float[np.ndarray, "d"],
    bonus: Float[np.ndarray, "S A"] | float = 0.0, most: float = np.inf,
) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """Q = phi'(reward + nu) + bonus, between 0 and `most`."""
    return np.clip(phi @ (reward + nu) + bonus, 0.0, most)


def divergence(
    pi: Float[np.ndarray, "S A"], reference: Float[np.ndarray, "S A"]
) -> Float[np.ndarray, "S"]:
    """KL(pi || reference) in every state."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pi > 0, pi * np.log(pi / reference), 0.0).sum(1)


def mirror_step(
    pi: Float[np.ndarray, "S A"], q: Float[np.ndarray, "S A"], eta: float,
    reference: Float[np.ndarray, "S A"], lam: float = 0.0,
) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """One step of mirror descent on <pi, q> - lam KL(pi || reference), which stays a softmax:

        pi' ~ reference^w pi^(1 - w) exp(eta q / (1 + eta lam)),  w = eta lam / (1 + eta lam).

    An infinite eta gives the regularized optimum reference exp(q / lam), and with lam = 0 the best
    action.
    """
    if np.isinf(eta) and lam == 0:
        return np.eye(q.shape[1])[q.argmax(1)]
    w, rate = (1.0, 1 / lam) if np.isinf(eta) else (
        eta * lam / (1 + eta * lam), eta / (1 + eta * lam))  # fmt: skip
    with np.errstate(divide="ignore"):
        kept = 0.0 if w == 1.0 else (1 - w) * np.log(pi)
        logits = w * np.log(reference) + kept + rate * q
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True)


def choose(
    pi: Float[np.ndarray, "S A"], q: Float[np.ndarray, "S A"],
    reference: Float[np.ndarray, "S A"], lam: float = 0.0,
) -> Float[np.ndarray, "S"]:  # fmt: skip
    """The value of a policy in every state, <pi, q> - lam KL(pi || reference)."""
    value = (pi * q).sum(1)
    return value - lam * divergence(pi, reference) if lam else value
