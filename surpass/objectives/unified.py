"""One estimator for supervised training, policy gradients and what lies between: per decision

    gradient = mask x A / denominator x grad pi(a_t | s_t),

"Towards a Unified View of Large Language Model Post-Training" (2025). With the denominator pi it is
imitation or REINFORCE, with the anchor's probability PPO and GRPO, with 1 a probability-weighted
use of other people's data, and so on: a method is a mask, a denominator and an advantage.
Denominators are parts that give their logarithm.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.ratio import kept
from surpass.objectives.views import Steps
from surpass.parts import Part, part

__all__ = ["anchored", "certain", "current", "shaped", "uncertain", "unified", "unmasked"]


@part
def unmasked(s: Steps, /) -> Float[Tensor, "B T"]:
    """Every decision counts."""
    return torch.ones_like(s.mask)


@part
def current(s: Steps, /) -> Float[Tensor, "B T"]:
    """log pi itself: grad pi / pi = grad log pi."""
    return s.logp.detach()


@part
def anchored(s: Steps, /) -> Float[Tensor, "B T"]:
    """log pi_anchor: importance weighting of what the anchor did. It reads `Steps.log_ratio`, so
    ratios of turns or sequences serve too."""
    return s.logp.detach() - s.log_ratio.detach()


@part
def certain(s: Steps, /) -> Float[Tensor, "B T"]:
    """log 1: whoever wrote the data is taken to have been certain."""
    return torch.zeros_like(s.logp)


@part
def shaped(s: Steps, /, gamma: float = 0.1, to_behavior: bool = False) -> Float[Tensor, "B T"]:
    """log of (p + gamma)^2 / gamma: the weight of grad log pi, gamma p / (p + gamma)^2, is that of
    the ratio p / (p + gamma), largest at p = gamma; LUFFY's, "Learning to Reason under Off-Policy
    Guidance" (2025). With `to_behavior` p is not the probability but its ratio to that under which
    the decision was drawn."""
    behavior = torch.zeros_like(s.logp)
    if to_behavior:
        assert s.behavior_logp is not None
        behavior = kept(s.behavior_logp, s.mask)
    p = (s.logp.detach() - behavior).exp()
    return behavior + 2 * (p + gamma).log() - math.log(gamma)


@part
def uncertain(s: Steps, /) -> Float[Tensor, "B T"]:
    """log of 1 / (1 - p): the weight of grad log pi, p (1 - p), is small where the model is already
    certain and where it finds the token impossible; CHORD's phi, "On-Policy RL Meets Off-Policy
    Experts" (2025)."""
    p = s.logp.detach().exp()
    return -torch.log1p(-p.clamp(max=1 - 1e-6))


@part
def unified(
    s: Steps, /, mask: Part[[Steps], Tensor] = unmasked(),
    denominator: Part[[Steps], Tensor] = current(),
) -> Float[Tensor, "B T"]:  # fmt: skip
    """-mask x A x pi / denominator, whose gradient is that of the module's first line."""
    log_ratio = kept(s.logp - denominator(s).detach(), s.mask)
    return -(mask(s) * s.advantage).detach() * log_ratio.exp()
