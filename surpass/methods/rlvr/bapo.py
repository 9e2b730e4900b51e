"""BAPO: clip bounds that are searched at every update, so that positive advantages keep their share
of the gradient."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.reduce import total
from surpass.objectives.views import Steps
from surpass.parts import Number, part
from surpass.registry import system

__all__ = ["balanced_clip", "bapo"]


@part
def balanced_clip(
    s: Steps, /, share: float = 0.5, low: tuple[float, float] = (0.6, 0.9),
    high: tuple[float, float] = (1.2, 3.0), step: float = 0.05, cap: float = 3.0,
    measure: str = "gradient",
) -> Float[Tensor, "B T"]:  # fmt: skip
    """-min(r A, clip(r, c_low, c_high) A), dual-clipped at `cap`; c_low, then c_high, rise by
    `step` until decisions with A > 0 supply `share` of the gradient.

    `measure="gradient"` counts what still carries gradient, "value" clipped values (under which a
    higher c_low can never help).
    """
    ratio, a = s.log_ratio.clamp(-20, 20).exp(), s.advantage
    lows = torch.arange(low[0], low[1] + 1e-6, step, device=ratio.device)
    highs = torch.arange(high[0], high[1] + 1e-6, step, device=ratio.device)
    # The path of the search: every low bound at the first high one, then every high bound.
    c_low = torch.cat([lows, lows[-1].expand(len(highs) - 1)])[:, None, None]
    c_high = torch.cat([highs[0].expand(len(lows)), highs[1:]])[:, None, None]
    r, size = ratio.detach(), s.mask * a.abs()
    if measure == "gradient":
        plus = torch.where((a > 0) & (r <= c_high), r, 0.0) * size
        minus = torch.where((a < 0) & (r >= c_low), r, 0.0) * size
    else:
        plus = torch.where(a > 0, torch.minimum(r, c_high), 0.0) * size
        minus = torch.where(a < 0, torch.maximum(r, c_low), 0.0) * size
    up, down = total(plus.sum((1, 2))), total(minus.sum((1, 2)))
    good = up >= share * (up + down)
    place = torch.where(good.any(), good.int().argmax(), len(good) - 1)
    chosen = torch.nn.functional.one_hot(place, len(good)).to(r.dtype)
    bounds = (chosen @ c_low[:, 0, 0], chosen @ c_high[:, 0, 0])
    inner = torch.minimum(ratio * a, torch.clamp(ratio, *bounds) * a)
    return -torch.where(a < 0, torch.maximum(inner, cap * a), inner)


@system("bapo")
def bapo(
    share: float = 0.5, low: tuple[float, float] = (0.6, 0.9),
    high: tuple[float, float] = (1.2, 3.0), group: int = 8, lr: Number = 1e-6, batch: int = 256,
    horizon: int = 256, epochs: int = 2, minibatches: int = 8,
) -> PolicyGradient:  # fmt: skip
    """GRPO on stale rollouts with `balanced_clip`."""
    return PolicyGradient(
        group_standardized(), balanced_clip(share, low, high), epochs=epochs,
        minibatches=minibatches, source=rollouts(batch, horizon, group),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
