"""Supervised training with a trust region: tokens that have risen enough stop counting."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, log
from surpass.objectives.advantage import ones
from surpass.objectives.reduce import token_mean
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["psft"]


@system("psft")
def psft(
    low: float = 0.2, high: float = 0.28, lr: Number = 1e-6, batch: int = 64, minibatches: int = 8
) -> PolicyGradient:
    """PPO on demonstrations with the advantage 1, `minibatches` steps for each snapshot of the
    policy; with one it is supervised training."""
    return PolicyGradient(
        ones(), clip(low, high), reduce=token_mean(), minibatches=minibatches,
        source=log(batch, view="sequences"),
        optimizer=Adam(lr, weight_decay=0.1, max_norm=1.0),
    )  # fmt: skip
