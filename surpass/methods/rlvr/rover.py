"""ROVER: the values of the uniformly random policy, kept in the model's own log-ratios."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_centered
from surpass.objectives.reduce import token_mean
from surpass.objectives.tree import valuation
from surpass.parts import Number
from surpass.registry import system

__all__ = ["rover"]


@system("rover")
def rover(
    rho: float = 1.0, scale: float = 1.0, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, minibatches: int = 4,
) -> PolicyGradient:  # fmt: skip
    """Regress rho log r on the centered reward plus the vocabulary mean of the next decision; no
    clip, no penalty, no critic."""
    return PolicyGradient(
        group_centered(), valuation(rho, scale), reduce=token_mean(), minibatches=minibatches,
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
