"""Clip-Cov and KL-Cov: leave the few decisions alone that drive entropy down the most."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_standardized, with_signal
from surpass.objectives.masks import clip_cov, kl_cov
from surpass.objectives.reduce import token_mean
from surpass.parts import Number
from surpass.registry import system

__all__ = ["clip_covariance", "kl_covariance"]


@system("entropy-cov")
def kl_covariance(
    share: float = 2e-3, beta: float = 1.0, group: int = 8, lr: Number = 5e-7, batch: int = 64,
    horizon: int = 256, minibatches: int = 4,
) -> PolicyGradient:  # fmt: skip
    """Unclipped GRPO, with beta |log r| on the decisions of the largest covariance."""
    return PolicyGradient(
        group_standardized(), kl_cov(share, beta), reduce=token_mean(), select=with_signal(),
        source=rollouts(batch, horizon, group, refill=4), minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("entropy-cov:clip")
def clip_covariance(
    share: float = 2e-4, low: float = 1.0, high: float = 5.0, quantile: float = 0.0,
    group: int = 8, lr: Number = 5e-7, batch: int = 64, horizon: int = 256, minibatches: int = 4,
) -> PolicyGradient:  # fmt: skip
    """Unclipped GRPO, without gradient at a few decisions of large covariance, drawn at random."""
    return PolicyGradient(
        group_standardized(), clip_cov(share, low, high, quantile=quantile), reduce=token_mean(),
        select=with_signal(), source=rollouts(batch, horizon, group, refill=4),
        minibatches=minibatches, optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
