"""Rewards that were not seen, imputed by a lower bound of what they could be."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["count_bound", "observed_rewards", "reward_lower_bound"]


def count_bound(
    total: Float[Tensor, "..."], count: Float[Tensor, "..."], width: float = 0.8,
    unseen: float = 1.0,
) -> Float[Tensor, "..."]:  # fmt: skip
    """A table's lower bound: mean - width / sqrt(count), and -unseen where nothing was seen.

    Args:
        total: sum of the rewards of each cell. count: rows of each cell.
    """
    seen = count.clamp_min(1)
    bound = total / seen - width / seen.sqrt()
    return torch.where(count > 0, bound, torch.full_like(bound, -unseen))


@part(needs=("labeled",))
def reward_lower_bound(
    nets: Nets, rows: Rows, /, kappa: float = 1.0, keep_observed: bool = False,
    model: str = "reward",
) -> dict[str, Tensor]:  # fmt: skip
    """The batch with mean - kappa sd over the ensemble for a reward; what was logged goes to
    `observed`. The column `labeled` is 1 where the logged reward is one.

    Args:
        keep_observed: labeled rows keep their reward; otherwise the learner sees one reward
            function. model: the ensemble's name.

    Semi-pessimistic Reinforcement Learning (2025).
    """
    members = nets[model](rows.obs, rows.action)
    bound = members.mean(0) - kappa * members.std(0)
    if keep_observed:
        bound = torch.where(rows.labeled > 0, rows.reward, bound)
    return {"reward": bound, "observed": rows.reward}


@part(needs=("labeled",))
def observed_rewards(nets: Nets, rows: Rows, /, model: str = "reward") -> Float[Tensor, "B"]:
    """The squared error of every member on labeled rows, 0 on the others; scaled so that its mean
    is that of labeled rows."""
    loss = nets[model].fit(rows.obs, rows.action, rows.observed, None).sum(0)
    return loss * rows.labeled / rows.labeled.mean().clamp_min(1e-6)
