"""Batches whose observations list candidates, and whose rows are apart by more or less time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["absent_as_nan", "over_elapsed"]


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
