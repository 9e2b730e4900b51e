"""Hard constraints as a value: the largest violation still to come, and what it makes feasible.

h(s) is -`safe` where the logged cost is 0 and +`unsafe` where it is positive; V_h(s) <= 0 says that
from s on no violation is needed. Safe Offline Reinforcement Learning with Feasibility-Guided
Diffusion Model (2024).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["feasible", "least_violation", "reach", "violation"]


def violation(rows: Rows, safe: float = 1.0, unsafe: float = 25.0) -> Float[Tensor, "B"]:
    """h(s): -`safe` where the logged cost is 0, +`unsafe` where it is positive."""
    return torch.where(rows.cost > 0, unsafe, -safe)


@part
def least_violation(
    nets: Nets, rows: Rows, /, tau: float = 0.9, q: str = "q_h_target", v: str = "v_h"
) -> Float[Tensor, "B"]:
    """|tau - 1(u > 0)| u^2, u = max_i Q_h,i(s, a) - V_h(s): the reversed expectile, by which V_h
    nears the least violation over logged actions as tau nears 1."""
    u = nets[q](rows.obs, rows.action).amax(0) - nets[v](rows.obs)
    return (torch.where(u < 0, tau, 1.0 - tau) * u.square()).sum(0)


@part(needs=("cost",))
def reach(
    nets: Nets, rows: Rows, /, gamma: float = 0.99, safe: float = 1.0, unsafe: float = 25.0,
    q: str = "q_h", v: str = "v_h",
) -> Float[Tensor, "B"]:  # fmt: skip
    """(Q_h(s, a) - y)^2 summed over the ensemble, y = (1 - gamma) h + gamma max(h, V_h(s')), and
    y = h at an end: the discounted Hamilton-Jacobi reachability backup."""
    h = violation(rows, safe, unsafe)
    future = torch.maximum(h, nets[v](rows.next_obs).amax(0).detach())
    going = (1.0 - gamma) * h + gamma * future
    y = torch.where(rows.terminated > 0, h, going)
    return nets[q].fit(rows.obs, rows.action, y, None).sum(0)


@part
def feasible(
    nets: Nets, rows: Rows, /, advantage: Any, reward: float = 3.0, risk: float = 5.0,
    caps: tuple[float, float] = (100.0, 150.0), q: str = "q_h_target", v: str = "v_h",
) -> Float[Tensor, "B"]:  # fmt: skip
    """How much a logged action counts: 1(Q_h <= 0) min(exp(reward A), cap) from feasible states,
    min(exp(risk (V_h - Q_h)), cap) from others, A what `advantage` says."""
    q_h = nets[q](rows.obs, rows.action).amax(0)
    v_h = nets[v](rows.obs).amax(0)
    inside = (q_h <= 0).float() * (advantage(nets, rows) * reward).exp().clamp(max=caps[0])
    outside = ((v_h - q_h) * risk).exp().clamp(max=caps[1])
    return torch.where(v_h <= 0, inside, outside)
