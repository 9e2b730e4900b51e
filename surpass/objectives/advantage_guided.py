"""Imitation of whichever action is worth more: the logged one, or one like those that were better
than expected. Losses per row [B].

Adaptive Advantage-Guided Policy Regularization for Offline Reinforcement Learning (A2PR, 2024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["better_of_two", "clone_better"]


@part
def clone_better(
    nets: Nets, rows: Rows, /, weight: float = 1.0, beta: float = 0.5, q: str = "q",
    v: str = "v", density: str = "density",
) -> Float[Tensor, "B"]:  # fmt: skip
    """weight 1(Q_1(s, a) > V(s)) |decode(s, z) - a|^2 / k + beta KL(q(z|s, a) || N(0, I)) / dim(z):
    a variational autoencoder (`action_vae`) of logged actions that were better than expected."""
    decoded, apart = nets[density].reconstructed(rows.obs, rows.action)
    logged = nets[q](rows.obs, rows.action, first=1)[0]
    better = (logged > nets[v](rows.obs).amin(0)).to(apart.dtype).detach()
    return weight * better * (decoded[0] - rows.action).square().mean(-1) + beta * apart


@part
def better_of_two(
    nets: Nets, rows: Rows, /, weight: float = 1.0, generate: bool = True, q: str = "q",
    v: str = "v", pi: str = "pi", density: str = "density",
) -> Float[Tensor, "B"]:  # fmt: skip
    """weight m |pi(s) - a*|^2, the mean over dimensions, with a' = decode(s, z), z ~ q(z|s, pi(s)),

        a* = a' where Q_1(s, a') >= Q_1(s, a), else a,
        m = 1(Q_1(s, a') >= V(s)) + 1(Q_1(s, a) > V(s)): 0, 1 or 2,

    without gradient through a* and m. Without `generate`, a* is the logged action.
    """
    action = nets[pi](rows.obs)
    with torch.no_grad():
        other = nets[density].reconstructed(rows.obs, action.detach())[0][0]
        logged = nets[q](rows.obs, rows.action, first=1)[0]
        made = nets[q](rows.obs, other, first=1)[0]
        expected = nets[v](rows.obs).amin(0)
        count = (made >= expected).to(made.dtype) + (logged > expected).to(made.dtype)
        better = (made >= logged)[:, None] if generate else torch.zeros_like(logged)[:, None] > 0
        target = torch.where(better, other, rows.action)
    return weight * count * (action - target).square().mean(-1)
