"""A deterministic policy for continuous actions: a = tanh(f(s)), in [-1, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["Deterministic", "deterministic"]


class Deterministic(nn.Module):
    """One action per observation."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], norm: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.net = StackedMLP(1, (obs_dim, *hidden, act_dim), norm, dropout=dropout)

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        return torch.tanh(self.net(obs)[0])

    def imitation(self, obs: Float[Tensor, "B d"], action: Tensor) -> Float[Tensor, "B"]:
        """The mean squared error over the action's dimensions."""
        return (self(obs) - action).square().mean(-1)

    def sample(self, obs: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """The one action it has (`samples` times), with log-probability 0."""
        action = self(obs)
        if samples is not None:
            action = action.expand(samples, *action.shape)
        return action, torch.zeros_like(action[..., 0])


@part
def deterministic(
    spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256), norm: bool = False,
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """A tanh policy of the given hidden layers, of whose units a share of `dropout` is dropped
    while it learns.

    Raises:
        InputError: when actions are discrete.
    """
    if spaces.discrete:
        raise InputError(
            "a deterministic tanh policy needs continuous actions, and here they are discrete; "
            "bc and iql fit both kinds"
        )
    return Deterministic(spaces.obs_dim, spaces.action_dim, tuple(hidden), norm, dropout)
