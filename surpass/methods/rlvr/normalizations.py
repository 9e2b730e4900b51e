"""GRPO with other advantages: what rewards are centered at and divided by."""

from __future__ import annotations

from typing import Any

from surpass.forms import Adam, PolicyGradient, copy, rollouts
from surpass.objectives.divergence import k3
from surpass.objectives.normalizing import certainty_mixed, normalized
from surpass.objectives.reduce import sequence_mean, token_mean
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["lite_ppo", "mapo"]


def _form(
    advantage: Any, trust: Any, reduce: Any, group: int, lr: Number, batch: int, horizon: int,
    minibatches: int, reference: bool = False,
) -> PolicyGradient:  # fmt: skip
    return PolicyGradient(
        advantage, trust, reduce=reduce, nets={"reference": copy("policy")} if reference else {},
        source=rollouts(batch, horizon, group), minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("lite-ppo")
def lite_ppo(
    center: str = "group", scale: str = "batch", eps: float = 0.2, group: int = 8,
    lr: Number = 1e-6, batch: int = 64, horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """PPO's clip without a critic: the group's mean, the batch's deviation, tokens counted alike.
    `center` and `scale` are the study's factors: group, batch or none."""
    return _form(normalized(center, scale), clip(eps, eps), token_mean(), group, lr, batch, horizon,
                 minibatches)  # fmt: skip


@system("mapo")
def mapo(
    eps: float = 0.2, beta: float = 1e-3, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """GRPO whose advantage is a z-score where a group's outcome is uncertain and the relative
    deviation from its mean where it is certain."""
    trust = clip(eps, eps) + beta * k3() if beta else clip(eps, eps)
    return _form(certainty_mixed(), trust, sequence_mean(), group, lr, batch, horizon, minibatches,
                 bool(beta))  # fmt: skip
