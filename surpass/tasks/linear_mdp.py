"""Linear Markov decision processes with exact values, nominal, perturbed and robust."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.objectives.planning import Nature, backup, choose, mirror_step, worst_mean

__all__ = ["Counts", "LinearMDP", "LinearPlay", "fail_or_safe"]


class Counts(NamedTuple):
    """What was seen at each step: `n` [H, S, A, S] transitions, `paid` [H, S, A] their rewards in
    all, and the last plan (None at first)."""

    n: Float[np.ndarray, "H S A S"]
    paid: Float[np.ndarray, "H S A"]
    last: Any


@dataclass(frozen=True, eq=False)
class LinearMDP:
    """P_h(.|s, a) = sum_i phi_i(s, a) mu_hi(.), r_h = phi'theta_h, phi on the simplex.

    Attributes:
        phi: [S, A, d]. mu: [H, d, S]. theta: [H, d]. start: the state where episodes begin.
    """

    phi: Float[np.ndarray, "S A d"]
    mu: Float[np.ndarray, "H d S"]
    theta: Float[np.ndarray, "H d"]
    start: int = 0

    @property
    def horizon(self) -> int:
        """H."""
        return len(self.mu)

    def uniform(self) -> Float[np.ndarray, "S A"]:
        """Every action equally often."""
        S, A, _ = self.phi.shape
        return np.full((S, A), 1 / A)

    def value(
        self, pi: Float[np.ndarray, "H S A"], radius: Float[np.ndarray, "H d"] | float = 0.0,
        lam: float = 0.0, nature: Nature = "tv",
    ) -> float:  # fmt: skip
        """The exact worth of a policy at the start, under the worst nature in the balls, less lam
        times its divergence from the uniform policy."""
        H, d = self.theta.shape
        table = np.broadcast_to(radius, (H, d))
        v = np.zeros(self.phi.shape[0])
        for h in reversed(range(H)):
            kind: Nature = nature if table[h].any() else "expect"
            q = backup(self.phi, self.theta[h], worst_mean(self.mu[h], v, table[h], kind))
            v = choose(pi[h], q, self.uniform(), lam)
        return float(v[self.start])

    def solve(
        self, radius: Float[np.ndarray, "H d"] | float = 0.0, lam: float = 0.0,
        nature: Nature = "tv",
    ) -> Float[np.ndarray, "H S A"]:  # fmt: skip
        """The exact regularized robust optimum."""
        H, d = self.theta.shape
        table, reference = np.broadcast_to(radius, (H, d)), self.uniform()
        v, out = np.zeros(self.phi.shape[0]), []
        for h in reversed(range(H)):
            kind: Nature = nature if table[h].any() else "expect"
            q = backup(self.phi, self.theta[h], worst_mean(self.mu[h], v, table[h], kind))
            pi = mirror_step(reference, q, np.inf, reference, lam)
            v = choose(pi, q, reference, lam)
            out.append(pi)
        return np.stack(out[::-1])

    def perturbed(self, factor: int, to: int, share: float, step: int = 0) -> LinearMDP:
        """The same problem, in which a share of a factor's mass goes to one state at one step."""
        mu = self.mu.copy()
        mu[step, factor] *= 1 - share
        mu[step, factor, to] += share
        return replace(self, mu=mu)


def fail_or_safe(horizon: int = 3) -> LinearMDP:
    """Five states: x1 to x3 on the way, x4 a fail state, x5 safe; 16 actions in {-1, 1}^4 that move
    between the risky way (z = 0.1) and the safe one (z = 0.5).

    Nominally the risky way is worth 1.81 from x1 against 1.67; the order turns when the first
    factor
    loses about a third of its mass to the fail state.
    """
    actions = np.array(list(product((-1, 1), repeat=4)))
    z = 0.3 + 0.05 * actions @ np.array([1, 1, -1, 1])
    phi = np.zeros((5, 16, 4))
    for s in range(3):
        phi[s, :, s], phi[s, :, 3] = 1 - z, z
    phi[3, :, 2] = phi[4, :, 3] = 1.0
    mu = np.zeros((4, 5))
    mu[0, [1, 3]] = mu[1, [2, 3]] = 0.999, 0.001
    mu[2, 3] = mu[3, 4] = 1.0
    theta = np.array([0.8, 0.8, 0.0, 0.5])
    return LinearMDP(phi, np.tile(mu, (horizon, 1, 1)), np.tile(theta, (horizon, 1)))


class LinearPlay:
    """Episodes in a linear problem, for `surpass.training.replan.replan`; plans are policies
    [H, S, A]."""

    def __init__(self, mdp: LinearMDP) -> None:
        self.mdp = mdp
        S, A, _ = mdp.phi.shape
        self.n, self.paid = np.zeros((mdp.horizon, S, A, S)), np.zeros((mdp.horizon, S, A))
        self.last: Any = None

    def records(self) -> Counts:
        """What was seen so far."""
        return Counts(self.n, self.paid, self.last)

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """One episode; its return (rewards are their expectations)."""
        s, total, self.last = self.mdp.start, 0.0, plan
        for h in range(self.mdp.horizon):
            a = int(rng.choice(plan.shape[2], p=plan[h, s]))
            mix = self.mdp.phi[s, a]
            r = float(mix @ self.mdp.theta[h])
            s2 = int(rng.choice(len(self.mdp.phi), p=mix @ self.mdp.mu[h]))
            self.n[h, s, a, s2] += 1
            self.paid[h, s, a] += r
            total, s = total + r, s2
        return total
