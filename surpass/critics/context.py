"""Which task this is, told from its transitions; and nets that are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["ContextEncoder", "TaskCodes", "coded", "context_encoder", "task_codebook"]


class ContextEncoder(nn.Module):
    """A transition (s, a, r) as a code; that of a context is the mean over its transitions."""

    def __init__(self, spaces: Spaces, d: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = StackedMLP(1, (spaces.obs_dim + spaces.action_dim + 1, *hidden, d))

    def forward(
        self, obs: Float[Tensor, "B o"], action: Float[Tensor, "B k"], reward: Float[Tensor, "B"]
    ) -> Float[Tensor, "B d"]:
        return self.net(torch.cat([obs, action, reward[:, None]], -1))[0]


class TaskCodes(nn.Module):
    """The code of every task of the log, [M, d]: the empirical prior over tasks."""

    def __init__(self, tasks: int, d: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(tasks, d))

    def forward(self) -> Float[Tensor, "M d"]:
        return self.table


@part
def context_encoder(
    spaces: Spaces, /, d: int = 20, hidden: tuple[int, ...] = (128, 128)
) -> nn.Module:
    """The encoder of a transition."""
    return ContextEncoder(spaces, d, tuple(hidden))


@part
def task_codebook(spaces: Spaces, /, tasks: int, d: int = 20) -> nn.Module:
    """A code per task."""
    return TaskCodes(tasks, d)


@part
def coded(spaces: Spaces, /, net: Any, d: int = 20) -> nn.Module:
    """A net whose observation has a code of length d at its end: `coded(critic(2), 20)`."""
    return net(replace(spaces, obs_dim=spaces.obs_dim + d))
