"""Regression on single answers with a known target: QRPO, TBRM and ShiQ."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, Scored, Source, copy, rollouts
from surpass.objectives.advantage import returns
from surpass.objectives.preference import quantile_regression
from surpass.objectives.reduce import sum_over, token_mean
from surpass.objectives.soft_bellman import soft_values, token_residuals, trajectory_residual
from surpass.parts import Number
from surpass.registry import system

__all__ = ["qrpo", "shiq", "tbrm"]


@system("qrpo")
def qrpo(
    beta: float = 1e-3, transform: str = "identity", lr: Number = 3e-7, batch: int = 128
) -> Scored:  # fmt: skip
    """(f(q) - beta log Z - beta Delta)^2 on the quantile q of each answer's reward among those of
    reference answers; gradients are not clipped."""
    return Scored(quantile_regression(beta, transform), source=Source("scored", batch),
                  optimizer=Adam(lr))  # fmt: skip


@system("tbrm")
def tbrm(
    beta: float = 5e-3, shift: bool = True, lr: Number = 1e-6, batch: int = 256,
    horizon: int = 256, epochs: int = 1,
) -> PolicyGradient:  # fmt: skip
    """(beta (V(s_1) + log pi / ref) - R)^2, one answer to a prompt, V read off the logits; no
    ratio, no clip, no critic."""
    return PolicyGradient(
        returns(), trajectory_residual(beta), reduce=sum_over(1.0), epochs=epochs,
        signals=(soft_values(),) if shift else (), nets={"reference": copy("policy")},
        source=rollouts(batch, horizon), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("shiq")
def shiq(
    beta: float = 0.1, shift: bool = True, lr: Number = 1e-6, batch: int = 64
) -> PolicyGradient:  # fmt: skip
    """The residual of the soft Bellman equation from every token on, logits as action values that
    are shifted by the reference's; scored answers of any policy."""
    return PolicyGradient(
        returns(), token_residuals(beta), reduce=token_mean(),
        signals=(soft_values(),) if shift else (), nets={"reference": copy("policy")},
        source=Source("scored", batch, "sequences"), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
