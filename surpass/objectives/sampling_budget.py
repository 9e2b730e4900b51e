"""How many answers each prompt gets: where gradients are long and right answers are rare, more.

"Optimizing Chain-of-Thought Reasoners via Gradient Variance Minimization in Rejection Sampling and
RL" (2025).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["allocated", "budget_weights", "gradient_variance"]


def budget_weights(
    rate: Float[Tensor, "m"], size: Float[Tensor, "m"], alpha: float = 1e-3, beta: float = 2.0
) -> Float[Tensor, "m"]:
    """G / sqrt(p + alpha / p^(beta - 1)), 0 where p or G is: what minimizes the variance of the
    mean gradient, less what hopeless prompts would take.

    Args:
        rate: p, the share of accepted answers. size: G, the norm of their gradients.
    """
    p = rate.clamp_min(1e-12)
    weight = size / (p + alpha / p ** (beta - 1)).sqrt()
    return torch.where((rate > 0) & (size > 0), weight, torch.zeros_like(weight))


def allocated(weight: Float[Tensor, "m"], total: int) -> Int[Tensor, "m"]:
    """Whole numbers in proportion to weights that sum to `total`, by largest remainders; all 0
    where all weights are."""
    if not bool((weight > 0).any()):
        return torch.zeros(len(weight), dtype=torch.long)
    exact = total * weight.double() / weight.double().sum()
    count = exact.floor().long()
    left = total - int(count.sum())
    count[(exact - count).argsort(descending=True, stable=True)[:left]] += 1
    return count


def gradient_variance(
    rate: Float[Tensor, "m"], size: Float[Tensor, "m"], count: Tensor
) -> Float[Tensor, ""]:
    """sum G^2 / (p N) / m^2, the variance of the mean gradient with N answers to each prompt."""
    return (size.square() / (rate * count)).sum() / len(rate) ** 2
