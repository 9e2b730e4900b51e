"""Occupancies that are combinations of known densities, from logged steps of one level at a time.

Where P(x' | x, a) = <phi(x, a), mu(x')>, what any policy visits next is <mu(x'), theta>.
"Reinforcement Learning in Low-Rank MDPs with Density Features" (2023), on finitely many states.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from surpass.errors import InputError

__all__ = ["barycentric_spanner", "clipped_weights", "mixture", "regressed"]


def mixture(
    mu: Float[np.ndarray, "d X"], seen: Float[np.ndarray, "X"], steps: int = 500, tol: float = 1e-9
) -> Float[np.ndarray, "X"]:
    """The combination of the densities mu, with weights on the simplex, of largest likelihood for
    counts of states; by expectation and maximization.

    Raises:
        InputError: when a state was seen that no density holds.
    """
    if (seen[mu.sum(0) <= 0] > 0).any():
        raise InputError("a state was seen that none of the density features holds")
    theta = np.full(len(mu), 1 / len(mu))
    at, share = seen > 0, seen[seen > 0] / seen.sum()
    for _ in range(steps):
        new = theta * (mu[:, at] @ (share / (theta @ mu[:, at])))
        done = np.abs(new - theta).max() < tol
        theta = new
        if done:
            break
    return theta @ mu


def clipped_weights(
    state: Float[np.ndarray, "n"], action: Float[np.ndarray, "n"], most_state: float,
    most_action: float,
) -> Float[np.ndarray, "n"]:  # fmt: skip
    """min(ratio of states, C^x) min(ratio of actions, C^a): what is beyond is dropped."""
    return np.minimum(state, most_state) * np.minimum(action, most_action)


def regressed(
    mu: Float[np.ndarray, "d X"], following: Float[np.ndarray, "X"], x2: Int[np.ndarray, "n"],
    weight: Float[np.ndarray, "n"], ridge: float = 1e-6,
) -> Float[np.ndarray, "X"]:  # fmt: skip
    """The occupancy of the next level: least squares of the weights on <mu(x'), theta> /
    following(x'), times `following` (the law of x' in the log); not negative, mass at most 1."""
    rows = mu[:, x2].T / np.maximum(following[x2], 1e-300)[:, None]
    gram = rows.T @ rows / len(x2) + ridge * np.eye(len(mu))
    theta = np.linalg.solve(gram, rows.T @ weight / len(x2))
    found = np.maximum(theta @ mu, 0.0)
    return found / max(found.sum(), 1.0)


def barycentric_spanner(theta: Float[np.ndarray, "n d"], factor: float = 2.0) -> list[int]:
    """At most d of the vectors, of which all others are combinations with coefficients up to
    `factor` in size: greedily by the determinant, then exchanged while one makes it `factor`
    times larger. Of a set of lower rank, as many as that."""
    u, s, _ = np.linalg.svd(theta, full_matrices=False)
    d = int((s > 1e-9 * s[0]).sum())
    x = u[:, :d] * s[:d]
    basis = np.eye(d)
    chosen = [-1] * d

    for i in range(d):
        chosen[i] = int(np.abs(np.linalg.solve(basis.T, x.T)[i]).argmax())
        basis[i] = x[chosen[i]]
    while True:
        size = np.abs(np.linalg.solve(basis.T, x.T))  # [d, n]
        i, j = np.unravel_index(size.argmax(), size.shape)
        if size[i, j] <= factor:
            return sorted({*chosen})
        chosen[i], basis[i] = int(j), x[j]
