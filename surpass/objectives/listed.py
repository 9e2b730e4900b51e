"""Batches whose observations list candidates, and whose rows are apart by more or less time."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["absent_as_nan", "every_candidate", "over_elapsed"]


@part(needs=("available", "next_available"))
def absent_as_nan(nets: Nets, rows: Rows, /) -> dict[str, Tensor]:
    """`obs` and `next_obs` [B, k d] with NaN for those of the k candidates that are not there."""
    return {
        name: _marked(getattr(rows, name), getattr(rows, here))
        for name, here in (("obs", "available"), ("next_obs", "next_available"))
    }


def _marked(obs: Tensor, available: Tensor) -> Tensor:
    width = obs.shape[-1] // available.shape[-1]
    here = available[..., None].expand(*available.shape, width).reshape(obs.shape)
    return torch.where(here.bool(), obs, torch.full_like(obs, float("nan")))


@part(needs=("elapsed",))
def over_elapsed(nets: Nets, rows: Rows, /) -> dict[str, Any]:
    """The discount of each row is gamma^elapsed, the time until the next: a semi-Markov process.

    Between MDPs and semi-MDPs: A framework for temporal abstraction in reinforcement learning
    (1999).
    """
    return {"span": rows.elapsed}


@part(needs=("available", "rewards", "elapses"))
def every_candidate(
    nets: Nets, rows: Rows, /, backup: Any, gamma: float = 0.99, q: str = "q", huber: float = 1.0
) -> Float[Tensor, "B"]:
    """The temporal-difference loss of all candidates, not only of the one that was chosen, [B]:

        y_i = r_i + gamma^(elapsed_i) backup(s'),   the mean over those that are there of
        huber(Q(s, i) - y_i)

    where the log knows what each would have earned, and the next state is taken for that of all.
    """
    future = backup(nets, rows).detach() * (1.0 - rows.terminated)
    y = rows.rewards + gamma**rows.elapses * future[:, None]
    here = rows.available.to(y.dtype)
    error = torch.where(rows.available.bool(), nets[q].all(rows.obs) - y, torch.zeros_like(y))
    size = error.abs()
    loss = torch.where(size < huber, 0.5 * error.square() / huber, size - 0.5 * huber)
    return ((loss * here).sum(-1) / here.sum(-1).clamp(min=1.0)).sum(0)
