"""Occupancies of policies from known density features, and data that cover all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.forms import Study
from surpass.objectives.density_features import (
    barycentric_spanner,
    clipped_weights,
    mixture,
    regressed,
)
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.low_rank_mdp import Level, LowRankMDP

__all__ = ["Covered", "Levels", "covering", "fitted_occupancies", "forc"]


class Levels(NamedTuple):
    """A log by level, the density features mu [H, d, X], and the law d0 [X] of first states."""

    steps: list[Level]
    mu: Float[np.ndarray, "H d X"]
    d0: Float[np.ndarray, "X"]

    def counts(self, h: int, following: bool = False) -> Float[np.ndarray, "X"]:
        """How often states were seen at a level, before the step or after."""
        seen = self.steps[h].x2 if following else self.steps[h].x
        return np.bincount(seen, minlength=len(self.d0)).astype(float)


class Covered(NamedTuple):
    """Data that cover every policy of a class, and which of them were followed up to each level."""

    levels: Levels
    followed: list[list[int]]


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


def covering(
    problem: LowRankMDP, policies: tuple[Float[np.ndarray, "H X A"], ...], n: int,
    rng: np.random.Generator, most_state: float = 10.0, most_action: float = 10.0,
) -> Covered:  # fmt: skip
    """FORCE: level by level, estimate the occupancies of all policies from the levels before,
    choose a few that span them, follow these evenly and act uniformly at the level."""
    H, X, A, _ = problem.phi.shape
    steps: list[Level] = []
    followed: list[list[int]] = []
    even = np.full((X, A), 1 / A)
    for h in range(H):
        seen = Levels(steps, problem.mu, problem.d0)
        now = fitted_occupancies(policies, most_state, most_action)(seen)[:, h]
        followed.append(barycentric_spanner(now))
        share = [problem.occupancy(policies[i])[h] for i in followed[-1]]
        steps.append(problem.level(h, np.mean(share, 0), even, n, rng))
    return Covered(Levels(steps, problem.mu, problem.d0), followed)


@system("forc")
def forc(
    policies: tuple[Float[np.ndarray, "H X A"], ...] = (), most_state: float = 10.0,
    most_action: float = 10.0, ridge: float = 1e-6,
) -> Study:  # fmt: skip
    """What policies visit, from a log that covers little; `covering` plays for one that covers all.

    `measure` takes `Levels` and gives occupancies [P, H + 1, X]; the value of a policy is the sum
    of d_h(x) pi_h(a|x) r_h(x, a).

    Args:
        policies: to be evaluated, [H, X, A] each.
        most_state, most_action: where ratios are clipped. ridge: of the regression.
    """
    return Study(fitted_occupancies(policies, most_state, most_action, ridge))
