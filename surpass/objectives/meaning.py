"""How far an answer may go from what was asked: weights by distance in meaning, and their bounds.

d(x, y) = 1 - cos(e(x), e(y)) lies in [0, 2], with e a frozen text encoder.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.reduce import total
from surpass.objectives.views import Sides
from surpass.parts import part

__all__ = ["closeness", "drift_bound", "pull", "pull_bound"]


@part(needs=("distance",))
def closeness(s: Sides, /, alpha: float = 2.0, normalize: bool = False) -> Float[Tensor, "B"]:
    """exp(-alpha d(x, y_w)), a weight: pairs count less whose chosen answer left the meaning of the
    prompt. With `normalize` its mean over the batch is 1.

    `steps.extras["distance"]` [B] is d(x, y_w); the rejected answer's does not enter. Yet weighing
    is penalizing: where labels follow a reward r, the optimum of the weighed DPO loss over all
    pairs is pi_ref exp((r - alpha d) / beta), since log [P(a beats b) W(a) / P(b beats a) W(b)] is
    the difference of r - alpha d.

    "Sem-DPO: Mitigating Semantic Inconsistency in Preference Optimization for Prompt Engineering"
    (2025). No formulas are public beyond the exponential of a cosine distance.

    Raises:
        InputError: without that column.
    """
    if "distance" not in s.chosen.steps.extras:
        raise InputError(
            "pairs need a column distance, from each prompt to its chosen answer; "
            "surpass.critics.meaning.with_distance(rows) adds it"
        )
    weight = (-alpha * s.chosen.steps.extras["distance"]).exp()
    if normalize:
        weight = weight * total(torch.ones_like(weight).sum()) / total(weight.sum())
    return weight


def drift_bound(drift: float, kl: float) -> float:
    """The most that E d of a policy can be: that of its reference, `drift`, and 2 sqrt(KL / 2), by
    Pinsker's inequality, since d spans 2."""
    return drift + 2 * math.sqrt(max(kl, 0.0) / 2)


def pull(distance: Float[Tensor, "N"], alpha: float, beyond: float) -> float:
    """The summed weight of the pairs whose chosen answer is `beyond` or further away: the gradient
    of a pair with respect to its margin is at most beta times its weight."""
    weight = (-alpha * distance).exp()
    return float(weight[distance >= beyond].sum())


def pull_bound(pairs: int, alpha: float, beyond: float) -> float:
    """The most that `pull` can be: N exp(-alpha beyond)."""
    return pairs * math.exp(-alpha * beyond)
