"""Plans for arms that recover while they rest."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surpass.forms import Planner
from surpass.objectives.periodic import Periods, periodic
from surpass.parts import part
from surpass.registry import system

__all__ = ["recovering_rewards"]


@part
def periodic_plan(rewards: Float[np.ndarray, "N D"], /, pulls: int = 1) -> Periods:
    """The purely periodic plan of known recovery curves [N, D]."""
    return periodic(rewards, pulls)


@system("recovering-rewards")
def recovering_rewards(pulls: int = 1) -> Planner:
    """Every arm has a fixed period: near the best of all plans when many arms may be pulled at
    once. `solve` takes recovery curves R_i(d) [N, D] and gives `Periods`."""
    return Planner(periodic_plan(pulls=pulls))
