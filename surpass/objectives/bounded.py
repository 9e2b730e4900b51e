"""Bounded ratios: where a policy should go when no action's probability may change by more than a
band, and a loss that goes there.

The best policy within 1 - eps <= pi / pi_old <= 1 + eps raises the actions above the median of Q to
the upper bound and lowers the rest to the lower one. `lean` [B, T] is how far above the median a
decision was, over a temperature; the target ratio is the sigmoid of it, within the band.

"Bounded Ratio Reinforcement Learning" (2026).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from surpass.objectives.advantage import (
    Sequences,
    group_standardized,
    over_decisions,
    same_group,
    spread,
    with_columns,
)
from surpass.objectives.reduce import masked_mean
from surpass.objectives.views import Steps
from surpass.parts import Nets, Part, part

__all__ = ["above_group_median", "above_median", "group_median", "median", "median_loss", "to_band"]


@part
def to_band(s: Steps, /, low: float = 0.3, high: float = 0.3) -> Float[Tensor, "B T"]:
    """|r - r*| |A|, r* = 1 - low + (low + high) sigmoid(lean): the distance in total variation to
    the target ratio, weighted by the advantage; past the target the gradient turns back."""
    target = 1.0 - low + (low + high) * torch.sigmoid(s.extras["lean"])
    ratio = s.log_ratio.clamp(-20.0, 20.0).exp()
    return (ratio - target).abs() * s.advantage.abs()


@part
def median(nets: Nets, seq: Sequences, /, net: str = "median") -> Any:
    """A column `median` [B, T]: what a net takes for the median of Q before each decision."""
    return with_columns(seq, median=nets[net](seq).detach())


@part
def median_loss(nets: Nets, seq: Sequences, /, net: str = "median") -> Float[Tensor, ""]:
    """softplus(Q - u) - (Q - u) / 2, the mean over decisions: least where Q lies above u as often
    as below (E sigmoid(Q - u) = 1/2)."""
    apart = seq.extras["value_target"] - nets[net](seq)
    return masked_mean(softplus(apart) - 0.5 * apart, seq.mask)


@part
def above_median(
    seq: Sequences, /, inner: Part[[Sequences], Any], temperature: float = 1e-3
) -> dict[str, Tensor]:
    """Another advantage's columns, and `lean` = (Q - u) / temperature, with Q = A + V and the
    column
    `median` u."""
    columns = inner(seq)
    lean = (columns["value_target"] - seq.extras["median"]) / temperature
    return {**columns, "lean": lean}


def group_median(seq: Sequences, value: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The median over each one's group; of an even group the middle between its two halves."""
    same = same_group(seq) > 0
    ordered = torch.where(same, value[None, :], torch.inf).sort(-1).values
    count = same.sum(-1)
    places = torch.arange(ordered.shape[-1], device=value.device)
    low = places == ((count - 1) // 2)[:, None]
    high = places == (count // 2)[:, None]
    zero = torch.zeros_like(ordered)
    return 0.5 * (torch.where(low, ordered, zero) + torch.where(high, ordered, zero)).sum(-1)


@part(needs=("group",))
def above_group_median(
    seq: Sequences, /, temperature: float = 1e-4, eps: float = 1e-6
) -> dict[str, Tensor]:
    """The advantage standardized in its group, and `lean` = (R - median R) / (std + eps) over a
    temperature: at the median the target is the middle of the band."""
    advantage = group_standardized(eps=eps)(seq)
    lean = (seq.total - group_median(seq, seq.total)) / (spread(seq, seq.total) + eps)
    return {"advantage": advantage, "lean": over_decisions(lean / temperature, seq)}
