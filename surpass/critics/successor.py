"""Forward and backward maps: the discounted visits of every policy pi_z, as an inner product.

M(s, a, z; s') = F(s, a, z) . B(s'), relative to the density of the log, so that any reward r gives
its code z = E[r(s) B(s)] and its values Q(s, a) = F(s, a, z) . z without further learning. Learning
One Representation to Optimize All Rewards (2021).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Acted, Policy, Spaces
from surpass.objectives.successor import on_sphere
from surpass.parts import Nets, part
from surpass.policies.diffusion import continuous_only
from surpass.policies.networks import StackedMLP

__all__ = [
    "Backward", "CodedActor", "Forward", "ZeroShot", "backward_map", "coded_actor", "forward_map",
    "zero_shot",
]  # fmt: skip


class Forward(nn.Module):
    """F(s, a, z), n heads: [n, B, d], or [n, m, B, d] for m actions of each state."""

    def __init__(self, spaces: Spaces, d: int, n: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = StackedMLP(n, (spaces.obs_dim + d + spaces.action_dim, *hidden, d))

    def forward(
        self, obs: Float[Tensor, "B o"], action: Float[Tensor, "... B k"], z: Float[Tensor, "B d"]
    ) -> Float[Tensor, "n ... B d"]:
        known = torch.cat([obs, z], -1)
        if action.dim() == 3:
            return self.net.mixed(known, action)
        return self.net(torch.cat([known, action], -1))


class Backward(nn.Module):
    """B(s), [B, d]."""

    def __init__(self, spaces: Spaces, d: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = StackedMLP(1, (spaces.obs_dim, *hidden, d))

    def forward(self, obs: Float[Tensor, "B o"]) -> Float[Tensor, "B d"]:
        return self.net(obs)[0]


class CodedActor(nn.Module):
    """pi(s, z), an action in [-1, 1]."""

    def __init__(self, spaces: Spaces, d: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.d = d
        self.net = StackedMLP(1, (spaces.obs_dim + d, *hidden, spaces.action_dim))

    def forward(self, obs: Float[Tensor, "B o"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        return torch.tanh(self.net(torch.cat([obs, z], -1))[0])


@part
def forward_map(
    spaces: Spaces, /, d: int = 50, n: int = 2, hidden: tuple[int, ...] = (256, 256)
) -> nn.Module:
    """F with n heads.

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "a forward map")
    return Forward(spaces, d, n, tuple(hidden))


@part
def backward_map(spaces: Spaces, /, d: int = 50, hidden: tuple[int, ...] = (256, 256)) -> nn.Module:
    """B."""
    return Backward(spaces, d, tuple(hidden))


@part
def coded_actor(spaces: Spaces, /, d: int = 50, hidden: tuple[int, ...] = (256, 256)) -> nn.Module:
    """pi(s, z).

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "a coded actor")
    return CodedActor(spaces, d, tuple(hidden))


class ZeroShot:
    """A policy for whatever reward it is given: `given(goal=g)`, `given(obs=S, reward=r)`, or
    `given(code=z)`."""

    def __init__(self, nets: Any, code: Tensor | None, pi: str, b: str) -> None:
        self.nets, self.code, self.pi, self.b = nets, code, pi, b

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """Choose for observations [B, o].

        Raises:
            InputError: when no reward was given yet.
        """
        if self.code is None:
            raise InputError(
                "this policy waits for its task: policy.given(goal=g), or given(obs=S, reward=r)"
            )
        z = self.code.expand(len(obs), -1)
        return Acted(self.nets[self.pi](obs, z), None, memory)

    @torch.no_grad()
    def given(self, **condition: Any) -> Policy:
        """The policy of a task: its `code`, a `goal` state [o], or labeled states `obs` [N, o] with
        `reward` [N]."""
        if "code" in condition:
            code = torch.as_tensor(condition["code"])
        elif "goal" in condition:
            code = self.nets[self.b](torch.as_tensor(condition["goal"])[None])[0]
        elif "obs" in condition and "reward" in condition:
            features = self.nets[self.b](condition["obs"])
            code = (condition["reward"][:, None] * features).mean(0)
        else:
            raise InputError("a task is a code, a goal, or obs with reward")
        return ZeroShot(self.nets, on_sphere(code), self.pi, self.b)


@part
def zero_shot(nets: Nets, roles: Any, /, pi: str = "pi", b: str = "b") -> Policy:
    """The policy of any reward, told when it acts."""
    return ZeroShot(nets, None, pi, b)
