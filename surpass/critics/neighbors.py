"""What lies nearby in the log: exact nearest neighbors by blocks of matrix products."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["nearest", "nearest_action"]


def nearest(
    queries: Float[Tensor, "B d"], keys: Float[Tensor, "N d"], block: int = 16_384
) -> Int[Tensor, "B"]:
    """The row of `keys` nearest to each query in Euclidean norm, exactly (up to rounding)."""
    distance, index = [], []
    for start in range(0, keys.shape[0], block):
        part_of = keys[start : start + block]
        score = part_of.square().sum(-1) - 2.0 * queries @ part_of.T
        low = score.min(-1)
        distance.append(low.values)
        index.append(low.indices + start)
    best = torch.stack(distance).argmin(0)
    return torch.stack(index).gather(0, best[None])[0]


@part
def nearest_action(
    nets: Nets, rows: Rows, /, beta: float = 2.0, pi: str = "pi"
) -> Float[Tensor, "B k"]:
    """The action of the logged pair nearest to (s, pi(s)), distances between states counting beta
    times.

    Policy Regularization with Dataset Constraint for Offline Reinforcement Learning (PRDC, 2023).
    """
    queries = torch.cat([beta * rows.obs, nets[pi](rows.obs)], -1).detach()
    keys = torch.cat([beta * rows.log["obs"], rows.log["action"]], -1)
    return rows.log["action"][nearest(queries, keys)]
