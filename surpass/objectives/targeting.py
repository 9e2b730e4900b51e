"""A return to be hit instead of the most."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, batch_centered
from surpass.objectives.reduce import total
from surpass.parts import part

__all__ = ["toward"]


@part
def toward(
    seq: Sequences, /, inner: Any = batch_centered(), target: float = 0.0, span: float = 1.0
) -> Float[Tensor, "B T"]:
    """2 (R* - J) / span^2 times another advantage, with J the mean return of the batch: along it
    the policy descends on ((J - R*) / span)^2, up where it earns too little, down where too much.

    "Counterfactual Explanation Policies in RL" (2023).
    """
    score = seq.total
    mean = total(score.sum()) / total(score.new_ones(score.shape).sum())
    return 2 * (target - mean) / span**2 * inner(seq)
