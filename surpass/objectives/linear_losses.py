"""Estimates of adversarial losses that are linear in features, and what regularized leaders do with
their sums. One step of an episode at a time: phi [S, A, d]."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = [
    "dilated_bonus", "estimated_loss", "exponential_weights", "inverse_covariance", "log_barrier",
    "magnitude_reduced", "projections",
]  # fmt: skip


def inverse_covariance(
    phi: Float[np.ndarray, "S A d"], visits: Float[np.ndarray, "S A"], gamma: float
) -> Float[np.ndarray, "d d"]:
    """(gamma I + E[phi phi'])^-1 over the distribution `visits`."""
    gram = np.einsum("sa,sai,saj->ij", visits, phi, phi)
    return np.linalg.inv(gram + gamma * np.eye(phi.shape[-1]))


def projections(
    phi: Float[np.ndarray, "S A d"], inverse: Float[np.ndarray, "d d"],
    seen: Float[np.ndarray, "... d"],
) -> Float[np.ndarray, "S A ..."]:  # fmt: skip
    """phi(s, a)' inverse x, for each seen x."""
    return np.tensordot(phi @ inverse, seen, axes=([-1], [-1]))


def estimated_loss(projected: Float[np.ndarray, "S A"], togo: float) -> Float[np.ndarray, "S A"]:
    """phi' inverse phi(s_h, a_h) L_h: unbiased up to gamma, and as large as H / gamma."""
    return projected * togo


def magnitude_reduced(
    projected: Float[np.ndarray, "S A"], togo: float, expected: Float[np.ndarray, "S A"],
    most: float,
) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """The same estimate in expectation, never far below zero:

        x L - H (x)_- + H E[(x)_-],   (u)_- = min(u, 0)

    with x the `projected` features of what was seen; the first two terms are not negative, since
    L <= H.

    Args:
        expected: E[(x)_-] [S, A] over what the policy visits. most: H, the largest loss-to-go.
    """
    return projected * togo - most * np.minimum(projected, 0.0) + most * expected


def dilated_bonus(
    widths: Float[np.ndarray, "H S A"], P: Float[np.ndarray, "H S A S"],
    pi: Float[np.ndarray, "H S A"], beta: float,
) -> Float[np.ndarray, "H S A"]:  # fmt: skip
    """B_h = b_h + (1 + 1/H) E[B_h+1] under the policy, where

        b(s, a) = beta (|phi(s, a)|^2 + E_{a'~pi} |phi(s, a')|^2),  |.| in the inverse covariance.

    Args:
        widths: the squared norms.
    """
    H = len(widths)
    out, v = np.zeros_like(widths), np.zeros(widths.shape[1])
    for h in reversed(range(H)):
        own = beta * (widths[h] + (pi[h] * widths[h]).sum(-1, keepdims=True))
        out[h] = own + (1 + 1 / H) * P[h] @ v
        v = (pi[h] * out[h]).sum(-1)
    return out


def exponential_weights(
    total: Float[np.ndarray, "... A"], eta: float
) -> Float[np.ndarray, "... A"]:
    """exp(-eta total), normalized."""
    logits = -eta * total
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def log_barrier(total: Float[np.ndarray, "... A"], eta: float) -> Float[np.ndarray, "... A"]:
    """argmin_p eta <p, total> + sum_a log(1 / p_a): p_a = 1 / (lam + eta total_a), lam found by
    bisection to machine precision."""
    x = eta * (total - total.min(-1, keepdims=True))
    A = x.shape[-1]
    low, high = np.full((*x.shape[:-1], 1), 1.0), np.full((*x.shape[:-1], 1), float(A))
    for _ in range(60):  # sum p falls from at least 1 (lam = 1) to at most 1 (lam = A)
        lam = 0.5 * (low + high)
        above = (1.0 / (lam + x)).sum(-1, keepdims=True) > 1.0
        low, high = np.where(above, lam, low), np.where(above, high, lam)
    p = 1.0 / (0.5 * (low + high) + x)
    return p / p.sum(-1, keepdims=True)
