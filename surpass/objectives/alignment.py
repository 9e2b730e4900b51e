"""How far a linear class is from being closed under the Bellman operator, and what that does to a
fixed point of temporal differences.

With features phi [N, d] of logged pairs and Delta = phi - gamma E[phi_pi(s') | s, a], a value
phi'theta misses its Bellman equation by Delta'(theta - theta*) when Q^pi = phi'theta*. "When is
Realizability Sufficient for Off-Policy Reinforcement Learning?" (2022), in the linear case; the
constants are a reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import linalg

from surpass.parts import part

__all__ = [
    "Moments", "Trust", "alignment", "concentrability", "direct", "factors", "fixed_point",
    "moments", "statistical",
]  # fmt: skip


class Moments(NamedTuple):
    """`sigma` = E[phi phi'], `a` = E[phi Delta'], `m` = E[Delta Delta'] under the behavior policy,
    and `goal` = E[Delta] under the target policy's discounted occupancy."""

    sigma: Float[np.ndarray, "d d"]
    a: Float[np.ndarray, "d d"]
    m: Float[np.ndarray, "d d"]
    goal: Float[np.ndarray, "d"]


def moments(
    phi: Float[np.ndarray, "N d"], first: Float[np.ndarray, "N d"],
    goal: Float[np.ndarray, "d"], weight: Float[np.ndarray, "N"] | None = None,
    second: Float[np.ndarray, "N d"] | None = None,
) -> Moments:  # fmt: skip
    """The moments from features and Deltas of rows.

    `first` are exact Deltas, or ones from a sampled next state; then `second` has to come from
    another, independent next state of the same row: the square of one sample also holds its
    variance, and the class looks less closed than it is.
    """
    w = np.full(len(phi), 1 / len(phi)) if weight is None else weight / weight.sum()
    other = first if second is None else second
    m = first.T @ (w[:, None] * other)
    both = (first + other) / 2
    return Moments(phi.T @ (w[:, None] * phi), phi.T @ (w[:, None] * both), (m + m.T) / 2, goal)


def alignment(seen: Moments) -> float:
    """kappa in [0, 1]: the least share of a Bellman error that its projection on the class keeps,

        kappa^2 = min_x (x'A' Sigma^-1 A x) / (x'M x),

    over x that have an error. 1 if and only if the class is closed, 0 where some error is invisible
    to a fixed point.
    """
    seen_through = seen.a.T @ np.linalg.pinv(seen.sigma, hermitian=True) @ seen.a
    values, vectors = linalg.eigh(seen.m)
    on = values > 1e-12 * max(values[-1], 1e-300)
    root = vectors[:, on] / np.sqrt(values[on])
    least = linalg.eigvalsh(root.T @ seen_through @ root)[0]
    return float(np.sqrt(np.clip(least, 0.0, 1.0)))


def concentrability(seen: Moments) -> float:
    """C = sup over theta of E_target[error]^2 / E_behavior[error^2] = goal' M^-1 goal; infinite
    where the target policy has errors that the log has none of."""
    inverse = np.linalg.pinv(seen.m, hermitian=True)
    missed = seen.goal - seen.m @ (inverse @ seen.goal)
    if np.linalg.norm(missed) > 1e-6 * np.linalg.norm(seen.goal):
        return np.inf
    return float(seen.goal @ inverse @ seen.goal)


def direct(seen: Moments) -> float:
    """goal' A^-1 Sigma A^-T goal, what C / kappa^2 is an upper bound of: the worst direction is
    replaced by the one in which errors of the class move the target policy's value."""
    try:
        x = np.linalg.solve(seen.a.T, seen.goal)
    except np.linalg.LinAlgError:
        return np.inf
    return float(x @ seen.sigma @ x)


def statistical(d: int, n: int, most: float, delta: float = 0.05, c: float = 1.0) -> float:
    """eps = most (c (d log n + log(1 / delta)) / n)^(1/2), for values up to `most`."""
    return float(most * np.sqrt(c * (d * np.log(n) + np.log(1 / delta)) / n))


def fixed_point(
    phi: Float[np.ndarray, "... N d"], delta: Float[np.ndarray, "... N d"],
    reward: Float[np.ndarray, "... N"],
) -> Float[np.ndarray, "... d"]:  # fmt: skip
    """LSTD: theta with mean phi (phi - gamma phi_pi(s'))' theta = mean phi reward."""
    a = np.einsum("...ni,...nj->...ij", phi, delta)
    b = np.einsum("...ni,...n->...i", phi, reward)
    return np.linalg.solve(a, b[..., None])[..., 0]


@dataclass(frozen=True)
class Trust:
    """What an estimate may be off by, and why.

    Attributes:
        statistics: eps, what the number of rows leaves open.
        concentrability: how much of the target policy's errors the log can see (its square root
            multiplies).
        alignment: kappa, how much of an error the class can see: 1 where it is closed under the
            Bellman operator (it divides).
        bound: C^(1/2) eps / (kappa (1 - gamma)).
        direct: the same where the worst direction is replaced by the one that matters; ours, not
            of the paper.
    """

    statistics: float
    concentrability: float
    alignment: float
    bound: float
    direct: float

    @property
    def misalignment(self) -> float:
        """(1 - kappa^2)^(1/2)."""
        return (1 - self.alignment**2) ** 0.5

    def __str__(self) -> str:
        weak = min(
            (1 / max(self.concentrability, 1e-300) ** 0.5, "coverage: log more of what it does"),
            (self.alignment, "the class: add features that hold what follows the ones it has"),
        )[1]
        return (
            f"off by up to {self.bound:.3g} (along the direction that matters {self.direct:.3g}): "
            f"statistics {self.statistics:.3g}, concentrability "
            f"{self.concentrability:.3g}, alignment {self.alignment:.3g} of 1\nweakest: {weak}"
        )


@part
def factors(
    seen: Moments, /, rows: int = 1000, most: float = 1.0, gamma: float = 0.99,
    delta: float = 0.05, c: float = 1.0,
) -> Trust:  # fmt: skip
    """The three factors of the error of a fixed point from so many rows, and their product."""
    eps = statistical(len(seen.goal), rows, most, delta, c)
    kappa, c_pi = alignment(seen), concentrability(seen)
    bound = c_pi**0.5 * eps / (max(kappa, 1e-300) * (1 - gamma))
    return Trust(eps, c_pi, kappa, bound, direct(seen) ** 0.5 * eps / (1 - gamma))
