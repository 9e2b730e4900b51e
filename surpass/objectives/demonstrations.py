"""Demonstrations as a reference policy of a finite-horizon problem: their clone, how strong a
penalty they pay for, bounds of what is worth with it, and rewards from preferences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

from surpass.objectives.confidence import Seen, bernstein, tables
from surpass.objectives.planning import choose, mirror_step
from surpass.parts import part

__all__ = ["Regularized", "budgeted", "clone_of", "rewards_of_preferences", "soft_optimistic"]


class Regularized(NamedTuple):
    """A policy [H, S, A], the width [H, S, A] of what is known of its values, and `gap`, an upper
    bound of what it loses to the regularized optimum from where episodes begin."""

    pi: Float[np.ndarray, "H S A"]
    width: Float[np.ndarray, "H S A"]
    gap: Float[np.ndarray, "S"]

    def behavior(self, rng: np.random.Generator) -> np.ndarray:
        """What is played: the policy, but at one random step (or none) the least known action."""
        pi, h = self.pi.copy(), int(rng.integers(len(self.pi) + 1))
        if h < len(pi):
            pi[h] = np.eye(pi.shape[2])[self.width[h].argmax(1)]
        return pi


def clone_of(expert: Seen) -> Float[np.ndarray, "H S A"]:
    """(N(s, a) + 1) / (N(s) + A): never 0, and the trajectory divergence of the expert from it
    falls as 1 / N."""
    n = expert.n.sum(-1) + 1
    return n / n.sum(-1, keepdims=True)


def budgeted(eps: float, expert: Seen, scale: float = 1.0) -> float:
    """lam = eps / (3 KL), with KL = scale S A H log(N) / N, the expert's divergence from the clone
    of N demonstrations: the more of them, the stronger the penalty; 0 without any."""
    H, S, A = expert.paid.shape
    n = expert.n[0].sum()
    return 0.0 if n < 2 else float(eps * n / (3 * scale * S * A * H * np.log(n)))


@part
def soft_optimistic(
    seen: Seen, /, reference: Any = None, lam: float = 0.1, c: float = 0.02, delta: float = 0.1
) -> Regularized:
    """UCBVI-Ent+: bounds of the regularized Q by Bernstein's bonus and a soft backup,
    V = lam log sum_a reference(a|s) exp(Q / lam); the policy is that of the upper bound."""
    t = tables(seen.n, seen.paid, delta)
    H, S, A = t.n.shape
    even = np.full((H, S, A), 1 / A)
    to = even if reference is None else np.asarray(reference)
    high, low, gap = np.zeros(S), np.zeros(S), np.zeros(S)
    pis, widths = [], []
    for h in reversed(range(H)):
        doubt = bernstein(t.P[h], high, t.n[h], H, t.iota, c) + c * t.P[h] @ (high - low) / H
        doubt = np.where(t.n[h] > 0, doubt, H)
        up = np.clip(t.r[h] + t.P[h] @ high + doubt, 0, H - h)
        down = np.clip(t.r[h] + t.P[h] @ low - doubt, 0, H - h)
        pi = mirror_step(to[h], up, np.inf, to[h], lam)
        best = mirror_step(to[h], down, np.inf, to[h], lam)
        width = up - down
        apart = (width**2).max(1) / (2 * lam) if lam else width.max(1)
        gap = np.minimum(H, apart + (pi * (t.P[h] @ gap)).sum(1))
        high, low = choose(pi, up, to[h], lam), choose(best, down, to[h], lam)
        pis.append(pi)
        widths.append(width)
    return Regularized(np.stack(pis[::-1]), np.stack(widths[::-1]), gap)


def rewards_of_preferences(
    first: Int[np.ndarray, "n H 2"], second: Int[np.ndarray, "n H 2"],
    better: Int[np.ndarray, "n"], states: int, actions: int, ridge: float = 1.0,
) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """Rewards [S, A] of largest likelihood when P(first is better) = sigmoid(R(first) - R(second)),
    from pairs of trajectories of (state, action); between 0 and 1."""
    x = np.zeros((len(better), states * actions))
    for sign, path in ((1, first), (-1, second)):
        at = path[..., 0] * actions + path[..., 1]
        np.add.at(x, (np.arange(len(x))[:, None], at), sign)
    found = LogisticRegression(C=1 / ridge, fit_intercept=False, max_iter=2000).fit(x, better)
    r = found.coef_[0].reshape(states, actions)
    return (r - r.min()) / max(r.max() - r.min(), 1e-12)
