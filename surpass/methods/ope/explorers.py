"""Explorers whose logs go straight back into `improve`."""

from __future__ import annotations

from typing import Any

from surpass.critics.rewards import Boosting
from surpass.forms import Explorer
from surpass.policies.exploring import inverse_gap
from surpass.registry import system

__all__ = ["squarecb"]


@system("adyen-squarecb")
def squarecb(gamma: float = 100.0, memory: int | None = 1, model: Any = None) -> Explorer:
    """Inverse-gap weighting over a supervised model that is refitted to the last batch only.

    Args:
        gamma: 0 is uniform, large is greedy.
        memory: batches that the model remembers, None for all: a longer memory is the remedy for
            generations that undo each other.
        model: of the reward; boosted trees of depth 3 when None.
    """
    return Explorer(inverse_gap(gamma), model or Boosting(trees=50, leaves=8), memory)
