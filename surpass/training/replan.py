"""Runs a planner that learns its model as it goes: solve, act, append, estimate, solve again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from surpass.errors import InputError
from surpass.forms import Planner

__all__ = ["Playground", "Replanned", "replan"]


class Playground(Protocol):
    """Where plans are carried out; it keeps the records that the planner's model is made from."""

    def records(self) -> Any:
        """What happened so far."""
        ...

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """Carry a plan out for one episode, append what happened, and say what it earned."""
        ...


@dataclass(frozen=True)
class Replanned:
    """The plans in order, and what each earned."""

    plans: list[Any]
    earned: list[float]


def replan(planner: Planner, place: Playground, *, seed: int = 0) -> Replanned:
    """As many episodes as the planner says.

    Args:
        planner: its `model` makes a model of the records, `solve` a plan of the model.
        place: where plans are carried out. seed: of what happens there.

    Raises:
        InputError: when the planner has no model or no episodes: then it plans with what is known,
            by `planner.solve(model)`.
    """
    if planner.model is None or planner.episodes < 1:
        raise InputError("this planner is given its model: call its solve(model)")
    rng = np.random.default_rng(seed)
    plans, earned = [], []
    for _ in range(planner.episodes):
        plans.append(planner.solve(planner.model(place.records())))
        earned.append(place.follow(plans[-1], rng))
    return Replanned(plans, earned)
