"""Critics that learn how returns spread, as a Gaussian: where they vary much, the mean moves less.

    Z(s, a) ~ N(Q(s, a), sigma(s, a)^2),   the gradient of -log N(y; Q, sigma^2) with respect to Q
    is (Q - y) / sigma^2: a step of temporal differences whose size falls with the variance.

Distributional Soft Actor-Critic: Off-Policy Reinforcement Learning for Addressing Value Estimation
Errors (DSAC, 2020).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.bellman import target_of
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["bounded_likelihood", "drawn_return", "gaussian_td"]


def bounded_likelihood(
    mean: Float[Tensor, "n B"], spread: Float[Tensor, "n B"], y: Float[Tensor, "B"],
    bound: float = 20.0, eps: float = 0.1,
) -> Float[Tensor, "n B"]:  # fmt: skip
    """What has the gradient of -log N(y; mean, spread^2), steadied:

        d / d mean = -(y - mean) / (spread^2 + eps)
        d / d spread = -((y_b - mean)^2 - spread^2) / (spread^3 + eps),
        y_b = mean + clip(y - mean, -bound, bound)

    Only the spread sees the bounded target. With an infinite bound and eps 0 it is the likelihood's
    own gradient, which explodes where the spread is small. The value itself means nothing.
    """
    with torch.no_grad():
        error, variance = y - mean, spread.square()
        pull = error / (variance + eps)
        widen = (error.clamp(-bound, bound).square() - variance) / (spread * variance + eps)
    return -(pull * mean + widen * spread)


@part
def gaussian_td(
    nets: Nets, rows: Rows, /, backup: Any, gamma: float = 0.99, bound: float = 20.0,
    eps: float = 0.1, q: str = "q",
) -> Float[Tensor, "B"]:  # fmt: skip
    """`bounded_likelihood` of r + gamma (1 - terminated) backup(s'), for a critic with a Gaussian
    head; `bound` is in units of the return. `td` on the same critic is plain likelihood."""
    y = target_of(nets, rows, backup, gamma)
    mean, spread = nets[q].distribution(rows.obs, rows.action)
    return bounded_likelihood(mean, spread, y, bound, eps).sum(0)


@part
def drawn_return(
    nets: Nets, rows: Rows, /, cut: float = 3.0, q: str = "q_target", pi: str = "pi_target",
    alpha: str = "alpha",
) -> Float[Tensor, "B"]:  # fmt: skip
    """Q(s', a') + sigma(s', a') xi - alpha log pi(a'|s'), a' ~ pi, xi ~ N(0, 1) within +-cut: a
    draw of the soft return, of the first critic. Were it the mean, the spread would be that of one
    step alone."""
    action, logp = nets[pi].sample(rows.next_obs)
    mean, spread = nets[q].distribution(rows.next_obs, action)
    drawn = mean[0] + spread[0] * torch.randn_like(mean[0]).clamp(-cut, cut)
    return drawn - nets[alpha]() * logp
