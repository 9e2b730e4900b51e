"""Choosing among actions that a generative policy proposes: by the critic that judges them.

best_of("pi", "q", n=64)             the highest, `policies.acting`
reweighted(n=64, weight=...)         each with probability in proportion to a weight
softmax_of(n=50)                     each with probability in proportion to exp(Q)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Policy
from surpass.parts import Nets, Part, part
from surpass.policies.acting import NetPolicy

__all__ = [
    "decoded",
    "expectile_weight",
    "exponential_weight",
    "picked",
    "quantile_weight",
    "reweighted",
    "softmax_of",
]


@part
def expectile_weight(u: Tensor, /, tau: float = 0.7) -> Tensor:
    """|tau - 1(u < 0)|: the actor that an expectile of level tau stands for, u = Q - V."""
    return torch.where(u < 0, 1.0 - tau, tau)


@part
def quantile_weight(u: Tensor, /, tau: float = 0.7) -> Tensor:
    """|tau - 1(u < 0)| / |u|, of a quantile."""
    return torch.where(u < 0, 1.0 - tau, tau) / u.abs().clamp(min=1e-6)


@part
def exponential_weight(u: Tensor, /, alpha: float = 1.0) -> Tensor:
    """alpha |exp(alpha u) - 1| / |u|, of the loss exp(alpha u) - alpha u."""
    small = u.abs() < 1e-6
    ratio = torch.expm1(alpha * u).abs() / u.abs().clamp(min=1e-6)
    return alpha * torch.where(small, alpha, ratio)


def picked(action: Float[Tensor, "m B k"], index: Tensor) -> Float[Tensor, "B k"]:
    """The action of each row that `index` [B] names."""
    return action.gather(0, index[None, :, None].expand(1, *action.shape[1:]))[0]


@part
def reweighted(
    nets: Nets, roles: Any, /, weight: Part[[Tensor], Tensor], n: int = 64, pi: str = "pi",
    q: str = "q_target", v: str = "v",
) -> Policy:  # fmt: skip
    """One of n actions of the policy, drawn by weight(min_i Q_i(s, a) - V(s)): as n grows, a draw
    from pi times the weight.

    IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies (2023).
    """

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        action, _ = nets[pi].sample(obs, n)
        u = nets[q](obs, action).amin(0) - nets[v](obs).amin(0)
        chosen = torch.multinomial(weight(u).T, 1)[:, 0]
        return picked(action, chosen), None

    return NetPolicy(choose)


@part
def softmax_of(
    nets: Nets, roles: Any, /, n: int = 50, temperature: float = 1.0, pi: str = "pi", q: str = "q"
) -> Policy:
    """One of n actions of the policy, drawn in proportion to exp(min_i Q_i(s, a) / temperature).

    Efficient Diffusion Policies for Offline Reinforcement Learning (2023), energy-based selection.
    """

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        action, _ = nets[pi].sample(obs, n)
        energy = nets[q](obs, action).amin(0) / temperature
        return picked(action, torch.multinomial(energy.softmax(0).T, 1)[:, 0]), None

    return NetPolicy(choose)


@part
def decoded(
    nets: Nets, roles: Any, /, bound: float = 1.5, draw: bool = False, pi: str = "pi",
    base: str = "base",
) -> Policy:  # fmt: skip
    """The action that the frozen net `base` makes of noise bound * u, u the policy's mean (or a
    `draw` from it).

    Steering Your Diffusion Policy with Latent Space Reinforcement Learning (2025).

    Raises:
        InputError: when `base` has no deterministic sampler.
    """
    if not hasattr(nets[base], "decode"):
        raise InputError(f"the net {base!r} has no 'decode'; hand in a diffusion or flow net")

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        noise = nets[pi].sample(obs)[0] if draw else nets[pi](obs)
        return nets[base].decode(obs, bound * noise), None

    return NetPolicy(choose)
