"""max@k: training for the best of k answers instead of the mean one."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.order_statistics import max_at_k as best_advantage
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import unclipped
from surpass.objectives.unified import anchored, unified
from surpass.parts import Number
from surpass.registry import system

__all__ = ["max_at_k"]


@system("max-at-k")
def max_at_k(
    k: int = 4, eps: float = 0.2, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, epochs: int = 1, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """The gradient of the expected best of k answers, from groups of at least k; clipped as in PPO
    where answers are used more than once."""
    return PolicyGradient(
        best_advantage(k), unified(unclipped(eps, eps), anchored()),
        reduce=sum_over(float(horizon)), epochs=epochs, minibatches=minibatches,
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
