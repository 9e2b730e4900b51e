"""GARL and PAFT: a loss between the success rate (q = 0) and its logarithm (q = 1), whose gradient
is that of the success rate P of each prompt times P^(-q)."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import leave_one_out
from surpass.objectives.groups import amplified, posterior, success_power
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import ratio_loss
from surpass.parts import Number
from surpass.registry import system

__all__ = ["garl", "paft"]


@system("tsallis-garl-paft")
def garl(
    q: float = 0.75, group: int = 16, lr: Number = 1e-6, batch: int = 64, horizon: int = 256
) -> PolicyGradient:
    """Answers of the policy: leave-one-out advantages times P^(-q), P the group's mean reward;
    q = 0 is RLOO. Groups without success give nothing."""
    return PolicyGradient(
        amplified(leave_one_out(), q), ratio_loss(), reduce=sum_over(float(horizon)),
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("tsallis-garl-paft:paft")
def paft(
    q: float = 0.75, group: int = 16, lr: Number = 1e-6, batch: int = 64, horizon: int = 256
) -> PolicyGradient:
    """Answers redrawn in proportion to their rewards, then imitated with weight P^(1-q): no
    negative weights."""
    return PolicyGradient(
        success_power(1 - q), ratio_loss(), select=posterior(), reduce=sum_over(float(horizon)),
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
