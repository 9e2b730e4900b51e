"""Occupancies of policies from known density features, and data that cover all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.forms import Study
from surpass.objectives.density_features import Levels, barycentric_spanner, fitted_occupancies
from surpass.registry import system
from surpass.tasks.low_rank_mdp import Level, LowRankMDP

__all__ = ["Covered", "covering", "forc"]


class Covered(NamedTuple):
    """Data that cover every policy of a class, and which of them were followed up to each level."""

    levels: Levels
    followed: list[list[int]]


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
