"""BAPO: clip bounds that are searched at every update, so that positive advantages keep their share
of the gradient."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.trust import balanced_clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["bapo"]


@system("bapo")
def bapo(
    share: float = 0.5, low: tuple[float, float] = (0.6, 0.9),
    high: tuple[float, float] = (1.2, 3.0), group: int = 8, lr: Number = 1e-6, batch: int = 256,
    horizon: int = 256, epochs: int = 2, minibatches: int = 8,
) -> PolicyGradient:  # fmt: skip
    """GRPO on stale rollouts with `balanced_clip`."""
    return PolicyGradient(
        group_standardized(), balanced_clip(share, low, high), epochs=epochs,
        minibatches=minibatches, source=rollouts(batch, horizon, group),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
