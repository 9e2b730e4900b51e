"""Log-ratios of policies: per decision for trust, per sequence for preferences.

`per_decision`, `per_turn` and `per_sequence` fill `Steps.log_ratio` [B, T] with the log of
pi / pi_anchor; `summed` and `averaged` reduce log pi - log pi_ref to one number per sequence [B].
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.reduce import decided
from surpass.objectives.views import Steps
from surpass.parts import Part, part

__all__ = [
    "averaged", "clamped", "per_decision", "per_sequence", "per_turn", "perceived", "summed",
    "to_behavior",
]  # fmt: skip


def kept(value: Tensor, mask: Tensor) -> Tensor:
    """`value` where the policy decided and 0 elsewhere, whatever stands there."""
    return torch.where(mask > 0, value, torch.zeros_like(value))


@part
def per_decision(s: Steps, /) -> Float[Tensor, "B T"]:
    """log pi(a_t | s_t) - log pi_anchor(a_t | s_t), the ratio of PPO and GRPO."""
    assert s.anchor_logp is not None
    return kept(s.logp - s.anchor_logp, s.mask)


@part
def per_sequence(s: Steps, /) -> Float[Tensor, "B T"]:
    """The mean over a sequence's decisions of their log-ratios, the same at each of them.

    s_i = (pi(y_i | x) / pi_anchor(y_i | x))^(1 / |y_i|), "Group Sequence Policy Optimization"
    (2025).
    """
    assert s.anchor_logp is not None
    own = decided(s.mask)
    log_ratio = kept(s.logp - s.anchor_logp, own)
    mean = log_ratio.sum(-1, keepdim=True) / own.sum(-1, keepdim=True).clamp_min(1)
    return mean * own


@part
def per_turn(s: Steps, /) -> Float[Tensor, "B T"]:
    """The mean of the log-ratios over the decisions of a turn, the same at each of them.

    `Steps.turn` numbers the turns from 0 (-1 outside). From "Stabilizing Off-Policy Training for
    Long-Horizon LLM Agents via Turn-Level Importance Sampling" (2025).
    """
    assert s.anchor_logp is not None and s.turn is not None
    own = decided(s.mask)
    log_ratio = kept(s.logp - s.anchor_logp, own)
    turn = s.turn.clamp_min(0)
    sums = torch.zeros_like(log_ratio).scatter_add(-1, turn, log_ratio)
    counts = torch.zeros_like(own).scatter_add(-1, turn, own)
    return (sums / counts.clamp_min(1)).gather(-1, turn) * own


@part
def clamped(
    s: Steps, /, low: float = -20.0, high: float = 20.0,
    inner: Part[[Steps], Tensor] = per_decision(),
) -> Float[Tensor, "B T"]:  # fmt: skip
    """A log-ratio held in [low, high], outside which it passes no gradient."""
    return inner(s).clamp(low, high)


def _to_reference(s: Steps) -> Tensor:
    log_ratio = s.logp if s.ref_logp is None else s.logp - s.ref_logp
    return kept(log_ratio, s.mask)


@part
def summed(s: Steps, /) -> Float[Tensor, "B"]:
    """Delta = sum_t log pi - log pi_ref, DPO's implicit reward without its beta; without a
    reference, the log-likelihood."""
    return _to_reference(s).sum(-1)


@part
def averaged(s: Steps, /) -> Float[Tensor, "B"]:
    """The mean over decisions of log pi - log pi_ref: length-normalized, as in SimPO and ORPO."""
    return _to_reference(s).sum(-1) / decided(s.mask).sum(-1).clamp_min(1)


@part
def perceived(s: Steps, /, low: float = -1.0, high: float = 1.5) -> Float[Tensor, "B"]:
    """The sum over decisions of log pi - log pi_ref, each held in [low, high] first: a decision
    beyond passes no gradient. Wider above than below, as people weigh gains and losses of
    probability.

    "Humanline: Online Alignment as Perceptual Loss" (2025).
    """
    return kept(_to_reference(s).clamp(low, high), s.mask).sum(-1)


@part
def to_behavior(s: Steps, /) -> Float[Tensor, "B T"]:
    """log pi - log mu, the ratio to whatever policy wrote the decision, however old."""
    assert s.behavior_logp is not None
    return kept(s.logp - s.behavior_logp, s.mask)
