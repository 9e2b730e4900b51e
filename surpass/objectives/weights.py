"""How much a logged action counts when it is cloned: weights from advantages, per row [B].

A weight multiplies a cloning loss: `stop(exponential(temperature=3)) * clone()`. `advantage(q, v)`
says by how much the action was better than expected.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = [
    "better_than_average", "exponential", "over_policy", "over_value", "positive",
    "quantile_over_value",
]  # fmt: skip


@part
def over_value(nets: Nets, rows: Rows, /, q: str = "q", v: str = "v") -> Float[Tensor, "B"]:
    """The advantage min_i Q_i(s, a) - V(s)."""
    return nets[q](rows.obs, rows.action).amin(0) - nets[v](rows.obs).amin(0)


@part
def quantile_over_value(
    nets: Nets, rows: Rows, /, alpha: float = 0.25, q: str = "q", v: str = "v"
) -> Float[Tensor, "B"]:
    """The advantage with the alpha-quantile over the ensemble in place of its minimum.

    Towards Robust Offline Reinforcement Learning under Diverse Data Corruption (RIQL, 2023).
    """
    values = nets[q](rows.obs, rows.action)
    return torch.quantile(values, alpha, dim=0) - nets[v](rows.obs).amin(0)


@part
def over_policy(
    nets: Nets, rows: Rows, /, samples: int = 4, q: str = "q", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """The advantage over the policy's own actions: Q(s, a) - mean_j Q(s, a_j), a_j ~ pi; Q is the
    lowest of the ensemble."""
    action, _ = nets[pi].sample(rows.obs, samples)
    return nets[q](rows.obs, rows.action).amin(0) - nets[q](rows.obs, action).amin(0).mean(0)


@part
def exponential(
    nets: Nets, rows: Rows, /, advantage: Any, temperature: float = 1.0, cap: float = 100.0
) -> Float[Tensor, "B"]:
    """min(exp(advantage * temperature), cap): the larger the temperature, the greedier.

    IQL (2021) writes beta for it; AWAC (2020) and CRR (2020) divide by its inverse.
    """
    return (advantage(nets, rows) * temperature).exp().clamp(max=cap)


@part
def positive(nets: Nets, rows: Rows, /, advantage: Any) -> Float[Tensor, "B"]:
    """1 where the action was better than expected, else 0.

    Critic Regularized Regression (2020), the binary rule.
    """
    return (advantage(nets, rows) > 0).float()


@part(needs=("return_to_go",))
def better_than_average(nets: Nets, rows: Rows, /) -> Float[Tensor, "B"]:
    """1 where the logged return from here on was above the mean of the batch, else 0: cloning the
    better half."""
    return (rows.return_to_go > rows.return_to_go.mean()).float()
