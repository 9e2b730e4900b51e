"""Decisions that are draws from a Gaussian of known spread: denoising steps, and robot actions.

`Drawn` is what one pass of the policy says of them; a statistic is a function of it, asked for by a
part's `needs`, and arrives in `Steps.extras` [B, T, k]. The anchor's stand there as `anchor_NAME`,
the reference's as `ref_NAME`.

A denoising step of size |dt| moves the mean by d = mu - mu_anchor. Where x was drawn by the anchor,
x = mu_anchor + s z, the mean over dimensions of the log-ratio is mean(z d) / s - mean(d^2) / 2 s^2:
biased below 0, and the more so the smaller s, so that clipping never holds the good samples of late
steps. "GRPO-Guard: Mitigating Implicit Over-Optimization in Flow Matching via Regulated Clipping"
(2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = [
    "Drawn", "center", "mean_kl", "normalized", "per_stride", "ratio_statistics", "spread",
    "standard", "stride",
]  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Decisions [N, k] and the Gaussians they are drawn from.

    Attributes:
        action, middle: the draw and the mean, [N, k]. deviation: [N, k], or one per dimension.
        logp: as the policy defines it, [N]. step: how far a step goes, |dt|, [N]; 1 where decisions
            are no steps.
    """

    action: Tensor
    middle: Tensor
    deviation: Tensor
    logp: Tensor
    step: Any = None


def center(d: Drawn) -> Tensor:
    """mu, [N, k]."""
    return d.middle


def spread(d: Drawn) -> Tensor:
    """s, [N, k]."""
    return d.deviation.expand_as(d.middle)


def standard(d: Drawn) -> Tensor:
    """z = (x - mu) / s, [N, k]."""
    return (d.action - d.middle) / d.deviation


def stride(d: Drawn) -> Tensor:
    """|dt|, [N]."""
    return torch.ones_like(d.logp) if d.step is None else d.step


@part(needs=(center, standard, "anchor_center", "anchor_standard"))
def normalized(s: Steps, /) -> Float[Tensor, "B T"]:
    """RatioNorm, a ratio: s (log p - log p_anchor + mean((mu - mu_anchor)^2) / 2 s^2), log p being
    means over dimensions, which is mean(z (mu - mu_anchor)): centered at 0 on the anchor's draws,
    and of one scale whatever the spread of the step. It sees means only, not a learned spread."""
    moved = s.extras["center"] - s.extras["anchor_center"]
    return kept((s.extras["anchor_standard"] * moved).mean(-1), s.mask)


@part(needs=(stride,))
def per_stride(s: Steps, /) -> Float[Tensor, "B T"]:
    """1 / |dt|, a factor of the loss: the mean of a step depends on the net through |dt|, so that
    every step of a path then pulls at the net alike."""
    return kept(1.0 / torch.where(s.mask > 0, s.extras["stride"], 1.0), s.mask)


@part(needs=(center, spread, "ref_center"))
def mean_kl(s: Steps, /) -> Float[Tensor, "B T"]:
    """KL(pi || pi_ref) of Gaussians of one spread, the mean over dimensions of
    (mu - mu_ref)^2 / 2 s^2."""
    apart = (s.extras["center"] - s.extras["ref_center"]) / s.extras["spread"]
    return kept(0.5 * apart.square().mean(-1), s.mask)


def ratio_statistics(
    s: Steps, low: float, high: float
) -> dict[str, Float[Tensor, "T"]]:  # fmt: skip
    """What clipping meets, per step over the batch: `mean` and `std` of the log-ratio, and the
    share of samples with A > 0 above 1 + high (`held_good`), of those with A < 0 below 1 - low
    (`held_bad`)."""
    own, ratio = decided(s.mask), s.log_ratio.exp()
    count = own.sum(0).clamp_min(1)
    mean = (s.log_ratio * own).sum(0) / count
    std = (((s.log_ratio - mean).square() * own).sum(0) / (count - 1).clamp_min(1)).sqrt()
    good, bad = own * (s.advantage > 0), own * (s.advantage < 0)
    return {
        "mean": mean, "std": std,
        "held_good": (good * (ratio > 1 + high)).sum(0) / good.sum(0).clamp_min(1),
        "held_bad": (bad * (ratio < 1 - low)).sum(0) / bad.sum(0).clamp_min(1),
    }  # fmt: skip
