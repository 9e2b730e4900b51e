"""Plans for arms that recover while they rest."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from surpass.forms import Planner
from surpass.objectives.periodic import Periods, periodic
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.arms import Pulls

__all__ = ["optimistic_recovery", "periodic_plan", "recovering_rewards"]


@part
def periodic_plan(rewards: Float[np.ndarray, "N D"], /, pulls: int = 1) -> Periods:
    """The purely periodic plan of known recovery curves [N, D]."""
    return periodic(rewards, pulls)


@part
def optimistic_recovery(seen: Pulls, /, bonus: float = 0.5) -> Float[np.ndarray, "N D"]:
    """Recovery curves as high as the pulls allow: the mean plus (bonus log T / n)^(1/2), at most 1,
    and nowhere above what is possible after a longer rest, since curves do not fall."""
    n = np.maximum(seen.count, 1e-12)
    index = np.minimum(seen.total / n + np.sqrt(bonus * math.log(seen.rounds) / n), 1.0)
    index[seen.count == 0] = 1.0
    return np.minimum.accumulate(index[:, ::-1], axis=1)[:, ::-1]


@system("recovering-rewards")
def recovering_rewards(pulls: int = 1, phases: int = 0, bonus: float = 0.5) -> Planner:
    """Every arm has a fixed period: near the best of all plans when many arms may be pulled at
    once. `solve` takes recovery curves R_i(d) [N, D] and gives `Periods`.

    Args:
        pulls: at most so many arms a round.
        phases: with 0 the curves are given; otherwise they are learned with optimism, in so many
            phases of `surpass.training.replan.replan`, each following a plan made from `Pulls`.
        bonus: of the optimism: 2 is what the regret bound asks for, rewards in [0, 1] need 0.5.
    """
    model = optimistic_recovery(bonus) if phases else None
    return Planner(periodic_plan(pulls=pulls), model, phases)
