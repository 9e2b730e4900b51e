"""Penalties for actions that the log would hardly have taken, per row [B]."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["unlikely"]


@part
def unlikely(
    nets: Nets, rows: Rows, /, samples: int = 1, tight: bool = False, density: str = "density",
    pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """How unlikely pi(s) is in the log, by a variational density: the negative evidence bound,
    scaled as it was trained (`ActionVAE.imitation`); `tight` takes -log p(pi(s)|s) by `samples`
    importance weights instead. The gradient passes through encoder and decoder into the action.

    Supported Policy Optimization for Offline Reinforcement Learning (SPOT, 2022).
    """
    action = nets[pi](rows.obs)
    if tight:
        return -nets[density].log_density(rows.obs, action, samples)
    return nets[density].imitation(rows.obs, action, samples)
