"""HAPO: DAPO in which every token has a temperature, an advantage and bounds of its own."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import overlong, with_signal
from surpass.objectives.reduce import token_mean
from surpass.objectives.uncertainty import entropy_heat, token_group_standardized, uneven_clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["hapo_token"]


@system("hapo-token")
def hapo_token(
    tau: float = 0.05, widen: float = 1.0, lean: float = 1.0, quantile: float = 0.8,
    low: float = 0.2, high: float = 0.2, cap: float = 10.0, cache: int = 0, group: int = 16,
    lr: Number = 1e-6, batch: int = 256, horizon: int = 256, minibatches: int = 16,
) -> PolicyGradient:  # fmt: skip
    """Uncertain tokens are sampled warmer, may rise further and count more once they moved; certain
    ones cooler, may fall further and count less while they did not. Advantages are centered over
    the tokens of a group. Ratios are to the model as it was, at the plain temperature."""
    return PolicyGradient(
        token_group_standardized(), uneven_clip(low, high, widen, lean, quantile, cap),
        reduce=token_mean(), select=with_signal(), minibatches=minibatches,
        signals=(overlong(horizon, cache),) if cache else (),
        source=rollouts(batch, horizon, group, refill=4, heat=entropy_heat(tau, quantile)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
