"""Occupancies that are combinations of known densities, from logged steps of one level at a time.

Where P(x' | x, a) = <phi(x, a), mu(x')>, what any policy visits next is <mu(x'), theta>.
"Reinforcement Learning in Low-Rank MDPs with Density Features" (2023), on finitely many states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from surpass.errors import InputError
from surpass.parts import part

__all__ = [
    "Levels", "barycentric_spanner", "clipped_weights", "fitted_occupancies", "mixture",
    "regressed",
]  # fmt: skip


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


class Levels(NamedTuple):
    """A log by level (steps with state x, action a, next state x2 [n] each, and the behavior policy
    [X, A]), the density features mu [H, d, X], and the law d0 [X] of first states."""

    steps: list[Any]
    mu: Float[np.ndarray, "H d X"]
    d0: Float[np.ndarray, "X"]

    def counts(self, h: int, following: bool = False) -> Float[np.ndarray, "X"]:
        """How often states were seen at a level, before the step or after."""
        seen = self.steps[h].x2 if following else self.steps[h].x
        return np.bincount(seen, minlength=len(self.d0)).astype(float)


@part
def fitted_occupancies(
    seen: Levels, /, policies: tuple[Float[np.ndarray, "H X A"], ...] = (),
    most_state: float = 10.0, most_action: float = 10.0, ridge: float = 1e-6,
) -> Float[np.ndarray, "P H1 X"]:  # fmt: skip
    """Occupancies of policies at levels 0 to H, each regressed from the one before:

        w = min(d_h / d_h^log, C^x) min(pi / behavior, C^a),  d_{h+1} / d_{h+1}^log ~ w at x'.

    What is estimated is the clipped occupancy: below the true one wherever the log covers too
    little, equal to it elsewhere. Errors of levels add up, they do not multiply.
    """
    out = np.zeros((len(policies), len(seen.steps) + 1, len(seen.d0)))
    out[:, 0] = seen.d0
    for h, (x, a, x2, behavior) in enumerate(seen.steps):
        before = seen.counts(h)
        law = mixture(seen.mu[h - 1], before) if h else before / before.sum()
        following = mixture(seen.mu[h], seen.counts(h, following=True))
        for i, pi in enumerate(policies):
            states = out[i, h, x] / np.maximum(law[x], 1e-300)
            w = clipped_weights(states, pi[h, x, a] / behavior[x, a], most_state, most_action)
            out[i, h + 1] = regressed(seen.mu[h], following, x2, w, ridge)
    return out
