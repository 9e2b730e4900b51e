"""Improving a diffusion policy by the action that one pass of its net makes of a noisy logged one.

`one_pass(guide)` trains the denoiser and hands the guide the column `clean` [B, k], an estimate of
the action that has a gradient: no chain is unrolled. Efficient Diffusion Policies for Offline
Reinforcement Learning (2023).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.objectives.value import scaled_by_coin
from surpass.parts import Nets, part

__all__ = ["climbing", "one_pass", "over_estimate", "regressing"]


@part
def one_pass(
    nets: Nets, rows: Rows, /, guide: Any, weight: float = 1.0, pi: str = "pi"
) -> dict[str, Float[Tensor, "B"]]:
    """Terms "denoise", mean_k (eps - eps_theta)^2 at one random level a row, and "guide", `weight`
    times what `guide` says of the estimate that the same pass gives."""
    denoise, clean = nets[pi].one_pass(rows.obs, rows.action)
    return {"denoise": denoise, "guide": weight * guide(nets, rows.filled(clean=clean))}


@part
def climbing(nets: Nets, rows: Rows, /, scale: float = 2.0, q: str = "q") -> Float[Tensor, "B"]:
    """-scale Q_i(s, clean) / mean |Q_i(s, clean)|, i one of the twin critics by a coin."""
    return -scale * scaled_by_coin(nets[q](rows.obs, rows.clean))


@part
def regressing(nets: Nets, rows: Rows, /, weight: Any) -> Float[Tensor, "B"]:
    """w |a - clean|^2 / 2, which is -w log N(a; clean, I) but for a constant; w has no gradient."""
    return weight(nets, rows).detach() * 0.5 * (rows.action - rows.clean).square().sum(-1)


@part
def over_estimate(nets: Nets, rows: Rows, /, samples: int = 10, q: str = "q") -> Float[Tensor, "B"]:
    """The advantage min_i Q_i(s, a) - mean_j min_i Q_i(s, a_j), a_j ~ N(clean, I)."""
    drawn = rows.clean + torch.randn(samples, *rows.clean.shape, device=rows.clean.device)
    values = nets[q](rows.obs, drawn).amin(0)
    return nets[q](rows.obs, rows.action).amin(0) - values.mean(0)
