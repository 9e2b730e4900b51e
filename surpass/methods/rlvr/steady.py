"""Policy gradients held near the old policy by a pull that grows, instead of a clip."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_centered, group_standardized
from surpass.objectives.normalizing import with_age
from surpass.objectives.ratio import to_behavior
from surpass.objectives.ratio_penalties import drift, log_clip, variance_bound
from surpass.objectives.reduce import token_mean
from surpass.parts import Number
from surpass.registry import system

__all__ = ["cpgd", "r2vpo"]


@system("cpgd")
def cpgd(
    eps: float = 0.2, alpha: float = 0.1, cap: float = 2.0, group: int = 8, lr: Number = 1e-6,
    batch: int = 64, horizon: int = 256, epochs: int = 1, minibatches: int = 8,
) -> PolicyGradient:  # fmt: skip
    """min(l A, clip(l) A) with l = log r, and a capped pull toward the old policy; no reference."""
    return PolicyGradient(
        group_centered(), log_clip(eps, eps) + alpha * drift(cap), reduce=token_mean(),
        source=rollouts(batch, horizon, group), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("r2vpo")
def r2vpo(
    delta: float = 0.02, rate: float = 5.0, replay: float = 0.0, oldest: int = 4, group: int = 8,
    lr: Number = 1e-6, batch: int = 64, horizon: int = 256, epochs: int = 1, minibatches: int = 4,
) -> PolicyGradient:  # fmt: skip
    """r A whose ratio is held at a variance of `delta` by a multiplier; with `replay`, a share of
    each batch is of the `oldest` last ones, each age with a multiplier of its own."""
    return PolicyGradient(
        with_age(group_standardized()), variance_bound(delta, rate, ages=oldest + 1),
        ratio=to_behavior(), reduce=token_mean(), epochs=epochs, minibatches=minibatches,
        source=rollouts(batch, horizon, group, replay=replay, oldest=oldest),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
