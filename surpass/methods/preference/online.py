"""Preferences and demonstrations that the policy makes itself, judged by a reward."""

from __future__ import annotations

from surpass.forms import Adam, Pairwise, PolicyGradient, rollouts
from surpass.objectives.advantage import best_of_group, ones
from surpass.objectives.preference import logistic
from surpass.objectives.trust import nll
from surpass.parts import Number
from surpass.registry import system

__all__ = ["best_of_n", "online_dpo"]


@system("online-dpo")
def online_dpo(
    beta: float = 0.1, group: int = 2, lr: Number = 1e-6, batch: int = 64, horizon: int = 256
) -> Pairwise:
    """DPO on the best and the worst of `group` fresh answers to each prompt; ties are dropped."""
    return Pairwise(logistic(beta), source=rollouts(batch, horizon, group),
                    optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("best-of-n")
def best_of_n(n: int = 8, lr: Number = 1e-5, batch: int = 64, horizon: int = 256) -> PolicyGradient:
    """Supervised training on the best of n fresh answers to each prompt."""
    return PolicyGradient(ones(), nll(), select=best_of_group(),
                          source=rollouts(batch, horizon, n),
                          optimizer=Adam(lr, max_norm=1.0))  # fmt: skip
