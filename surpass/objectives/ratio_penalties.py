"""Trust without a wall: penalties on the ratio whose pull grows with the distance, where a clip
cuts the gradient off.

All see `Steps`, whose `log_ratio` is that of the policy to the anchor; a loss per decision, [B, T].
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided, total
from surpass.objectives.views import Steps
from surpass.parts import State, part

__all__ = ["drift", "log_clip", "quadratic", "variance_bound"]


@part
def quadratic(s: Steps, /, eps: float = 0.2) -> Float[Tensor, "B T"]:
    """-(r A - |A| (r - 1)^2 / (2 eps)): its minimum over r is at 1 + sign(A) eps, and a ratio that
    overshot is pulled back, where PPO's clip gives it no gradient.

    "Simple Policy Optimization" (2024).
    """
    apart = s.log_ratio.exp() - 1
    return s.advantage.abs() * apart.square() / (2 * eps) - (apart + 1) * s.advantage


@part
def log_clip(s: Steps, /, low: float = 0.2, high: float = 0.2) -> Float[Tensor, "B T"]:
    """-min(l A, clip(l, log(1 - low), log(1 + high)) A), l the log-ratio: inside the range its
    gradient is A grad log pi, without the ratio as a factor.

    "CPGD: Toward Stable Rule-based Reinforcement Learning for Language Models" (2025).
    """
    held = s.log_ratio.clamp(math.log1p(-low), math.log1p(high))
    return -torch.minimum(s.log_ratio * s.advantage, held * s.advantage)


@part
def drift(s: Steps, /, cap: float = 2.0) -> Float[Tensor, "B T"]:
    """min(r - 1, cap) log pi, the factor stopped: its gradient is that of r - 1 - log r, a
    divergence from the anchor, at most `cap` a decision.

    The gradient is capped, not the divergence: a capped divergence would leave -grad log pi, which
    pushes the ratio further up. Same paper as `log_clip`.
    """
    weight = (s.log_ratio.detach().exp() - 1).clamp(max=cap)
    return weight * kept(s.logp, s.mask)


def _one_weight(ages: int, start: float, **_: object) -> State:
    return {"weight": torch.full((ages,), start)}


@part(state=_one_weight)
def variance_bound(
    state: State, s: Steps, /, delta: float = 0.02, rate: float = 5.0, start: float = 1.0,
    least: float = 0.1, most: float = 100.0, ages: int = 1, cap: float = 5.0,
) -> tuple[Float[Tensor, "B T"], State]:  # fmt: skip
    """-r A + w (r - 1)^2, where w rises while the mean of (r - 1)^2, the variance of the ratio
    under the anchor, lies above `delta`: w <- clip(w + rate (mean - delta), least, most).

    With `ages` > 1 every age of data (`Steps.extras["age"]`, in batches; the last stands for all
    that are older) has its own w, so that stale decisions are held more tightly. log r is held in
    [-cap, cap] in the penalty.

    A reconstruction from the abstract of "Ratio-Variance Regularized Policy Optimization for
    Efficient LLM Fine-tuning" (2026): the constraint on the variance is the paper's, its dual
    ascent and the constants are ours.
    """
    apart = (s.log_ratio.clamp(-cap, cap).exp() - 1).square()
    age = torch.zeros_like(s.mask) if ages == 1 else s.extras["age"].clamp(0, ages - 1)
    at = torch.nn.functional.one_hot(age.long(), ages).to(apart.dtype)  # [B, T, ages]
    own = (decided(s.mask)[..., None] * at).flatten(0, 1)
    seen = torch.where(own > 0, apart.detach().flatten()[:, None], torch.zeros_like(own))
    count = total(own.sum(0))
    mean = total(seen.sum(0)) / count.clamp_min(1)
    weight = state["weight"]
    moved = (weight + rate * (mean - delta)).clamp(least, most)
    loss = (at @ weight) * apart - s.log_ratio.exp() * s.advantage
    return loss, {"weight": torch.where(count > 0, moved, weight)}
