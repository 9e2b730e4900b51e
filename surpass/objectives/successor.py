"""Forward-backward losses: the visits of every policy from a log without rewards, pessimistically.

With M_ij = F(s_i, a_i, z_i) . B(s'_j), the density of s'_j after (s_i, a_i) under pi_z relative to
the log, and Q(s, a, z) = F(s, a, z) . z. Learning One Representation to Optimize All Rewards
(2021);
Conservative World Models (2023).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = [
    "follow_code", "forward_backward", "measure_penalty", "on_sphere", "orthonormal", "task_codes",
    "value_penalty",
]  # fmt: skip


def on_sphere(x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """x scaled to length sqrt(d)."""
    return math.sqrt(x.shape[-1]) * normalize(x, dim=-1)


@part
def task_codes(
    nets: Nets, rows: Rows, /, mix: float = 0.5, d: int = 50, b: str = "b"
) -> dict[str, Tensor]:
    """A column `code` [B, d]: uniform on the sphere of radius sqrt(d), or with probability `mix`
    the code of another row's next state as the goal."""
    n = len(rows)
    free = on_sphere(torch.randn(n, d, device=rows.obs.device))
    goals = on_sphere(nets[b](rows.next_obs))[torch.randperm(n, device=rows.obs.device)]
    aimed = torch.rand(n, 1, device=rows.obs.device) < mix
    return {"code": torch.where(aimed, goals, free)}


def _apart(n: int, like: Tensor) -> Tensor:
    """1 off the diagonal, 0 on it, divided so that a sum is a mean."""
    return (1.0 - torch.eye(n, device=like.device)) / (n * (n - 1))


@part
def forward_backward(
    nets: Nets, rows: Rows, /, gamma: float = 0.98, noise: float = 0.2, clip: float = 0.3,
    f: str = "f", b: str = "b", pi: str = "pi",
) -> Float[Tensor, ""]:  # fmt: skip
    """mean_{i != j} (M_ij - gamma min M'_ij)^2 / 2 - mean_i M_ii, summed over the heads; M' of the
    slow copies `f_target`, `b_target` at a' = pi(s', z) + clipped noise; nothing follows an end."""
    z = rows.code
    with torch.no_grad():
        action = nets[pi](rows.next_obs, z)
        jitter = (noise * torch.randn_like(action)).clamp(-clip, clip)
        action = (action + jitter).clamp(-1.0, 1.0)
        later = nets[f"{f}_target"](rows.next_obs, action, z)
        later = (later @ nets[f"{b}_target"](rows.next_obs).T).amin(0)
        later = (1.0 - rows.terminated)[:, None] * later
    measure = nets[f](rows.obs, rows.action, z) @ nets[b](rows.next_obs).T  # [n, B, B]
    error = (measure - gamma * later).square() * _apart(len(rows), z)
    return (0.5 * error.sum((1, 2)) - measure.diagonal(dim1=1, dim2=2).mean(-1)).sum()


@part
def orthonormal(nets: Nets, rows: Rows, /, b: str = "b") -> Float[Tensor, ""]:
    """mean_{i != j} (B_i . B_j)^2 - 2 mean_i |B_i|^2: least where E[B B^T] is the identity."""
    features = nets[b](rows.next_obs)
    inner = (features @ features.T).square() * _apart(len(rows), features)
    return inner.sum() - 2.0 * features.square().sum(-1).mean()


def _proposed(nets: Nets, rows: Rows, uniform: int, own: int, pi: str) -> Float[Tensor, "m B k"]:
    """Uniform actions, those of pi at s and at s' with noise, and the logged one."""
    with torch.no_grad():
        k = rows.action.shape[-1]
        free = torch.rand(uniform, len(rows), k, device=rows.obs.device) * 2.0 - 1.0
        here, there = (nets[pi](o, rows.code) for o in (rows.obs, rows.next_obs))
        near = [(a + 0.2 * torch.randn_like(a)).clamp(-1.0, 1.0)[None]
                for a in (here, there) for _ in range(own)]  # fmt: skip
    return torch.cat([free, *near, rows.action[None]])


@part
def value_penalty(
    nets: Nets, rows: Rows, /, uniform: int = 6, own: int = 2, f: str = "f", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """logsumexp_a F(s, a, z) . z - F(s, a_log, z) . z over proposed actions, summed over heads: the
    values of all tasks are low off the log (VC-FB)."""
    actions = _proposed(nets, rows, uniform, own, pi)
    values = (nets[f](rows.obs, actions, rows.code) * rows.code).sum(-1)  # [n, m, B]
    return (torch.logsumexp(values, 1) - values[:, -1]).sum(0)


@part
def measure_penalty(
    nets: Nets, rows: Rows, /, uniform: int = 6, own: int = 2, f: str = "f", b: str = "b",
    pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The same of the visits to every state of the batch (MC-FB): mean_j logsumexp_a M_ij(a) -
    M_ij(a_log), summed over heads."""
    actions = _proposed(nets, rows, uniform, own, pi)
    visits = nets[f](rows.obs, actions, rows.code) @ nets[b](rows.next_obs).T  # [n, m, B, B]
    return (torch.logsumexp(visits, 1) - visits[:, -1]).mean(-1).sum(0)


@part
def follow_code(nets: Nets, rows: Rows, /, f: str = "f", pi: str = "pi") -> Float[Tensor, "B"]:
    """-min over heads of F(s, pi(s, z), z) . z: the actor of all tasks."""
    values = nets[f](rows.obs, nets[pi](rows.obs, rows.code), rows.code)
    return -(values * rows.code).sum(-1).amin(0)
