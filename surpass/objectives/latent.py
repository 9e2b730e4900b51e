"""Critics of a policy that acts through the noise of a frozen sampler: a = G(s, b u), |u_k| <=
1."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["decoded_backup", "distilled"]


@part
def decoded_backup(
    nets: Nets, rows: Rows, /, bound: float = 1.5, q: str = "q_target", pi: str = "pi",
    base: str = "base",
) -> Float[Tensor, "B"]:  # fmt: skip
    """min_i Q_i(s', G(s', b u')), u' ~ pi: values live on actions, so that any log can feed
    them."""
    noise, _ = nets[pi].sample(rows.next_obs)
    return nets[q](rows.next_obs, nets[base].decode(rows.next_obs, bound * noise)).amin(0)


@part
def distilled(
    nets: Nets, rows: Rows, /, bound: float = 1.5, q: str = "q", latent: str = "q_latent",
    base: str = "base",
) -> Float[Tensor, "B"]:  # fmt: skip
    """sum_i (Q^W_i(s, u) - min_j Q_j(s, G(s, b u)))^2 at fresh noise b u ~ N(0, I), cut at the box:
    no step in the environment is needed.

    Steering Your Diffusion Policy with Latent Space Reinforcement Learning (2025).
    """
    noise = torch.randn_like(rows.action).clamp(-bound, bound)
    action = nets[base].decode(rows.obs, noise)
    worth = nets[q](rows.obs, action).amin(0).detach()
    return nets[latent].fit(rows.obs, noise / bound, worth, None).sum(0)
