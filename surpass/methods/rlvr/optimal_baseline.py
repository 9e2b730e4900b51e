"""OBLR-PO: a baseline weighed by gradients, and a rate set by how much of a gradient is signal."""

from __future__ import annotations

from typing import Any

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.optimal_baseline import by_signal, in_parts, optimal_baseline
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.policies.score_norms import score_squares
from surpass.registry import system

__all__ = ["oblr_po"]


@system("oblr-po")
def oblr_po(
    lr: Number = 1e-6, parts: int = 4, keep: float = 0.9, floor: float = 0.1, layer: str = "head",
    eps: float = 0.2, group: int = 8, batch: int = 64, horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """REINFORCE with the baseline of the least variance; `lr` is the largest rate, multiplied by
    signal / (signal + noise) of the gradient, from `parts` shares of each batch.

    A reconstruction: see `surpass.objectives.optimal_baseline`. Gradients are weighed by that of
    the head's matrix (`layer="all"` takes all weights); the clip acts with several minibatches."""
    rule: Any = by_signal(keep, floor)
    return PolicyGradient(
        optimal_baseline(), in_parts(clip(eps, eps), parts), reduce=sum_over(float(horizon)),
        signals=(score_squares(layer),), gradient=rule, minibatches=minibatches,
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
