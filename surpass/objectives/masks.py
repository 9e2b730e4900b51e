"""Which decisions carry gradient, and penalties on some of them: masks by ratio and by covariance.

Masks are factors [B, T] of 0 and 1, without gradient; with `unified` they make a trust rule:
`unified(two_side(0.2, 0.2), current())`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided, total
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = [
    "clip_cov", "kl_cov", "largest", "ring", "squared_ratio", "token_covariance", "two_side",
]  # fmt: skip


@part
def two_side(s: Steps, /, low: float = 0.2, high: float = 0.2) -> Float[Tensor, "B T"]:
    """1 where 1 - low <= r <= 1 + high, whatever the advantage.

    "Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm" (2025).
    """
    ratio = s.log_ratio.detach().exp()
    return ((ratio >= 1 - low) & (ratio <= 1 + high)).to(ratio.dtype)


@part
def ring(
    s: Steps, /, low: float = 0.2, high: float = 0.2, outer_low: float = 0.6,
    outer_high: float = 2.0,
) -> Float[Tensor, "B T"]:  # fmt: skip
    """`two_side`, and far outside the decisions that lead back: A > 0 and r <= 1 - outer_low, or
    A < 0 and r >= 1 + outer_high. From the same paper."""
    ratio = s.log_ratio.detach().exp()
    inside = (ratio >= 1 - low) & (ratio <= 1 + high)
    back = ((s.advantage > 0) & (ratio <= 1 - outer_low)) | (
        (s.advantage < 0) & (ratio >= 1 + outer_high)
    )
    return (inside | back).to(ratio.dtype)


@part
def squared_ratio(s: Steps, /) -> Float[Tensor, "B T"]:
    """(sum over decisions of log r)^2 / 2 of each sequence, in equal shares at its decisions: the
    regularizer of OPMD, "Kimi k1.5: Scaling Reinforcement Learning with LLMs" (2025)."""
    own = decided(s.mask)
    total = kept(s.log_ratio, own).sum(-1, keepdim=True)
    return 0.5 * total.square() / own.sum(-1, keepdim=True).clamp_min(1) * own


def token_covariance(s: Steps) -> Float[Tensor, "B T"]:
    """C_t = (A_t - mean A) (log pi_t - mean log pi), means over decisions, without gradient: what a
    decision contributes to the covariance that drives entropy down.

    "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models" (2025).
    """
    own = decided(s.mask)
    count = total(own.sum()).clamp_min(1)
    logp, advantage = (kept(x.detach(), own) for x in (s.logp, s.advantage))
    mean_logp, mean_advantage = (total(x.sum()) / count for x in (logp, advantage))
    return (advantage - mean_advantage) * (logp - mean_logp) * own


def largest(value: Tensor, allowed: Tensor, count: Tensor) -> Tensor:
    """1 at the `count` largest allowed entries (fewer, where fewer are allowed)."""
    held = torch.where(allowed, value, torch.full_like(value, -torch.inf)).flatten()
    place = torch.arange(held.numel(), device=held.device)
    order = held.argsort(descending=True)
    rank = torch.zeros_like(place).scatter(0, order, place).view(value.shape)
    return ((rank < count) & allowed).to(value.dtype)


def _count(own: Tensor, share: float) -> Tensor:
    return (share * own.sum()).floor().clamp_min(1)


@part
def clip_cov(
    s: Steps, /, share: float = 2e-4, low: float = 1.0, high: float = 5.0, cap: float = 10.0,
    quantile: float = 0.0,
) -> Float[Tensor, "B T"]:  # fmt: skip
    """-r A, dual-clipped at `cap`, without gradient at a random `share` of the decisions (at least
    one) whose covariance lies in (low, high).

    With `quantile` > 0 the candidates are the decisions above that quantile of C instead: the
    published bounds suit z-scored advantages and large vocabularies. Same paper as
    `token_covariance`.
    """
    own = decided(s.mask)
    ratio = s.log_ratio.exp()
    a = s.advantage
    loss = -torch.where(a < 0, torch.maximum(ratio * a, cap * a), ratio * a)
    c = token_covariance(s)
    if quantile > 0:
        candidates = largest(c, own > 0, _count(own, 1 - quantile)) > 0
    else:
        candidates = (c > low) & (c < high) & (own > 0)
    chosen = largest(torch.rand_like(c), candidates, _count(own, share))
    return torch.where(chosen > 0, loss.detach(), loss)


@part
def kl_cov(s: Steps, /, share: float = 2e-3, beta: float = 1.0) -> Float[Tensor, "B T"]:
    """-r A, plus beta |log r| at the `share` of decisions (at least one) of the largest covariance.

    |log r| has no gradient at r = 1, so it asks for several updates of a batch. Same paper as
    `token_covariance`.
    """
    own = decided(s.mask)
    chosen = largest(token_covariance(s), own > 0, _count(own, share))
    return -s.log_ratio.exp() * s.advantage + beta * chosen * s.log_ratio.abs()
