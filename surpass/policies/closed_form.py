"""Policy improvement without an actor: the behavior policy, shifted along the critic's gradient.

Offline Reinforcement Learning with Closed-Form Policy Improvement Operators (CFPI, 2023). In the
space before the tanh, Q is linearized at an anchor (gradient g) and maximized subject to
-log pi_b(u) <= budget, which a Gaussian N(mu, Sigma) solves exactly:

    u = mu + sqrt(2 budget) Sigma g / sqrt(g' Sigma g)

A mixture gives two lower bounds of its log-density, hence two kinds of proposals; the best by the
critics' lower bound is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.forms import Policy
from surpass.parts import Nets, part
from surpass.policies.acting import NetPolicy

__all__ = ["gaussian_shift", "jensen_proposal", "max_proposals", "shifted"]

Gradient = Any


def gaussian_shift(
    mean: Float[Tensor, "... k"], std: Float[Tensor, "... k"], gradient: Float[Tensor, "... k"],
    budget: Any,
) -> Float[Tensor, "... k"]:  # fmt: skip
    """argmax of gradient . u over (u - mean)' Sigma^-1 (u - mean) <= 2 budget, Sigma = std^2."""
    step = std.square() * gradient
    length = (gradient * step).sum(-1, keepdim=True) + 1e-7
    budget = torch.as_tensor(budget, device=mean.device)
    scale = (2.0 * budget).sqrt()
    return mean + (scale[..., None] if scale.dim() else scale) * step / length.sqrt()


def max_proposals(
    mean: Tensor, std: Tensor, log_weights: Float[Tensor, "B c"], gradient: Tensor, log_tau: float
) -> tuple[Float[Tensor, "B c k"], Tensor]:
    """A proposal per component, by log sum exp >= max: `(u [B, c, k], allowed [B, c])`.

    The budget of component i is log_tau + log w_i + p_i - max_j (log w_j + p_j), at least 0, with
    p_i the log-density of the component at its mean; components of weight under 0.05 are left out.
    """
    peak = log_weights - std.log().sum(-1)
    budget = (log_tau + peak - peak.amax(-1, keepdim=True)).clamp(min=0.0)
    return gaussian_shift(mean, std, gradient, budget), log_weights.exp() >= 0.05


def jensen_proposal(
    mean: Tensor, std: Tensor, log_weights: Tensor, gradient_at: Gradient, log_tau: float
) -> tuple[Float[Tensor, "B k"], Tensor]:
    """The proposal from log sum w_i N_i >= sum w_i log N_i: `(u [B, k], feasible [B])`.

    Precisions average, A = sum w_i Sigma_i^-1; `gradient_at` gives the critic's gradient at the
    averaged mean.
    """
    weights = log_weights.exp()[..., None]
    precision = std.square().reciprocal()
    total = (weights * precision).sum(-2)
    center = (weights * precision * mean).sum(-2) / total
    spread = (weights * precision * mean.square()).sum((-2, -1)) - (total * center.square()).sum(-1)
    left = 2.0 * log_tau - spread
    u = gaussian_shift(center, total.rsqrt(), gradient_at(center), 0.5 * left.clamp(min=0.0))
    return u, left >= 0.0


@part
def shifted(
    nets: Nets, roles: Any, /, log_tau: float = 0.5, pessimism: float = 1.0, pi: str = "pi",
    q: str = "q",
) -> Policy:  # fmt: skip
    """The behavior policy's closed-form improvement; log_tau = 0 gives its (heaviest) mean.

    Q's lower bound is mean - pessimism std over the critics.
    """

    def bound(obs: Tensor, u: Float[Tensor, "m B k"]) -> Float[Tensor, "m B"]:
        values = nets[q](obs, torch.tanh(u))
        return values.mean(0) - pessimism * values.std(0, correction=0)

    def gradient(obs: Tensor, u: Float[Tensor, "m B k"]) -> Float[Tensor, "m B k"]:
        return torch.func.grad(lambda v: bound(obs, v).sum())(u)

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        mean, log_std, weights = nets[pi].parameters_of(obs)
        if log_tau <= 0.0:
            return nets[pi](obs), None
        at_means = gradient(obs, mean.transpose(0, 1)).transpose(0, 1)
        u, allowed = max_proposals(mean, log_std.exp(), weights, at_means, log_tau)
        if mean.shape[1] > 1:
            middle, feasible = jensen_proposal(
                mean, log_std.exp(), weights, lambda c: gradient(obs, c[None])[0], log_tau
            )
            u = torch.cat([u, middle[:, None]], 1)
            allowed = torch.cat([allowed, feasible[:, None]], 1)
        score = bound(obs, u.transpose(0, 1)).T.masked_fill(~allowed, -torch.inf)
        best = score.argmax(-1)[:, None, None].expand(-1, 1, u.shape[-1])
        return torch.tanh(u.gather(1, best)[:, 0]), None

    return NetPolicy(choose)
