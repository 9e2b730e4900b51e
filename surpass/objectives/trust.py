"""Trust rules: the loss per decision [B, T], from a log-ratio and an advantage.

`Steps.log_ratio` is filled by the form's ratio (of the policy to the anchor), `Steps.advantage` by
its advantage. The gradient of all of them is mask x ratio x advantage x grad log pi, so each can
also be written from its factors: `stop(unclipped() * importance() * gain()) * nll()`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.ratio import kept
from surpass.objectives.reduce import total
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = [
    "balanced_clip", "clip", "clip_and_removed", "decoupled_clip", "dual_clip", "exponential_gain",
    "gain",
    "importance", "nll", "off_policy", "ratio_loss", "shifted_clip", "unclipped",
]  # fmt: skip


@part
def clip(s: Steps, /, low: float = 0.2, high: float = 0.2) -> Float[Tensor, "B T"]:
    """-min(r A, clip(r, 1 - low, 1 + high) A), the pessimistic surrogate.

    "Proximal Policy Optimization Algorithms" (2017); `high > low` is DAPO's clip-higher (2025).
    """
    ratio = s.log_ratio.exp()
    return -torch.minimum(ratio * s.advantage, ratio.clamp(1 - low, 1 + high) * s.advantage)


@part
def dual_clip(
    s: Steps, /, low: float = 0.2, high: float = 0.2, cap: float = 3.0
) -> Float[Tensor, "B T"]:
    """`clip`, whose loss is at most -cap A where A < 0: a stale bad action cannot dominate.

    "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning" (2019).
    """
    ratio = s.log_ratio.exp()
    inner = torch.minimum(ratio * s.advantage, ratio.clamp(1 - low, 1 + high) * s.advantage)
    return -torch.where(s.advantage < 0, torch.maximum(inner, cap * s.advantage), inner)


@part
def shifted_clip(s: Steps, /, eps: float = 0.2) -> Float[Tensor, "B T"]:
    """-min(r A, clip(r, q - eps, q + eps) A) with r = pi / mu the ratio to whatever policy wrote
    the decision (the form's ratio is `to_behavior`) and q = pi_anchor / mu: old data pulls as their
    ratio says, and trust is centered on the anchor. On fresh data q = 1, and it is `clip`.

    "Squeeze the Soaked Sponge: Efficient Off-policy Reinforcement Finetuning for Large Language
    Model" (2025).
    """
    assert s.anchor_logp is not None and s.behavior_logp is not None
    center = kept(s.anchor_logp - s.behavior_logp, s.mask).exp().detach()
    ratio = s.log_ratio.exp()
    held = torch.clamp(ratio, center - eps, center + eps)
    return -torch.minimum(ratio * s.advantage, held * s.advantage)


@part
def decoupled_clip(s: Steps, /, eps: float = 0.2) -> Float[Tensor, "B T"]:
    """-(pi_anchor / mu) min(r A, clip(r) A): trust is centered on the anchor, the expectation is
    corrected from the policy mu that collected.

    "Batch size-invariance for policy optimization" (2021).
    """
    assert s.anchor_logp is not None and s.behavior_logp is not None
    weight = kept(s.anchor_logp - s.behavior_logp, s.mask).exp().detach()
    ratio = s.log_ratio.exp()
    return -weight * torch.minimum(ratio * s.advantage, ratio.clamp(1 - eps, 1 + eps) * s.advantage)


@part
def ratio_loss(s: Steps, /) -> Float[Tensor, "B T"]:
    """-r A: importance-weighted, no trust region."""
    return -s.log_ratio.exp() * s.advantage


@part
def nll(s: Steps, /) -> Float[Tensor, "B T"]:
    """-log pi(a_t | s_t), the negative log-likelihood; times a stopped advantage, REINFORCE."""
    return -kept(s.logp, s.mask)


@part
def importance(s: Steps, /) -> Float[Tensor, "B T"]:
    """r = pi / pi_anchor, as a factor."""
    return s.log_ratio.exp()


@part
def gain(s: Steps, /) -> Float[Tensor, "B T"]:
    """The advantage, as a factor."""
    return s.advantage


@part
def exponential_gain(s: Steps, /, beta: float = 1.0, cap: float = 20.0) -> Float[Tensor, "B T"]:
    """min(exp(A / beta), cap), as a factor: `stop(exponential_gain()) * nll()` is AWR.

    "Advantage-Weighted Regression: Simple and Scalable Off-Policy Reinforcement Learning" (2019).
    """
    return (s.advantage / beta).exp().clamp(max=cap)


@part
def unclipped(s: Steps, /, low: float = 0.2, high: float = 0.2) -> Float[Tensor, "B T"]:
    """1 where `clip` passes gradient: not (A > 0 and r > 1 + high), not (A < 0 and r < 1 - low)."""
    ratio = s.log_ratio.exp()
    stopped = ((s.advantage > 0) & (ratio > 1 + high)) | ((s.advantage < 0) & (ratio < 1 - low))
    return 1 - stopped.to(ratio.dtype)


@part
def clip_and_removed(s: Steps, /, low: float = 0.2, high: float = 0.2) -> dict[str, Tensor]:
    """`clip`, and beside it what it took away: the terms `clip` and `removed`.

        removed = -r A where (A > 0 and r > 1 + high) or (A < 0 and r < 1 - low), else 0

    The gradients of both add up to that of -r A without a clip. `removed` is for a gradient rule,
    such as `divided_by("removed")`, which measures its gradient and does not follow it. "ST-PPO:
    Stabilized Off-Policy Proximal Policy Optimization for Multi-Turn Agents Training" (2025).
    """
    stopped = 1 - unclipped(low, high)(s)
    removed = torch.where(stopped > 0, ratio_loss()(s), torch.zeros_like(s.log_ratio))
    return {"clip": clip(low, high)(s), "removed": removed}


@part
def off_policy(s: Steps, /, cap: float = 2.0) -> Float[Tensor, "B T"]:
    """min(pi_anchor / mu, cap), stopped: corrects for a sampler mu that is not the anchor (another
    engine, another precision, a stale worker)."""
    assert s.anchor_logp is not None and s.behavior_logp is not None
    return kept(s.anchor_logp - s.behavior_logp, s.mask).exp().clamp(max=cap).detach()


@part
def balanced_clip(
    s: Steps, /, share: float = 0.5, low: tuple[float, float] = (0.6, 0.9),
    high: tuple[float, float] = (1.2, 3.0), step: float = 0.05, cap: float = 3.0,
    measure: str = "gradient",
) -> Float[Tensor, "B T"]:  # fmt: skip
    """-min(r A, clip(r, c_low, c_high) A), dual-clipped at `cap`; c_low, then c_high, rise by
    `step` until decisions with A > 0 supply `share` of the gradient.

    "BAPO: Stabilizing Off-Policy Reinforcement Learning for LLMs via Balanced Policy Optimization
    with Adaptive Clipping" (2025). `measure="gradient"` counts what still carries gradient,
    "value" clipped values (under which a
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
