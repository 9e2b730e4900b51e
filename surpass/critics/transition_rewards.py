"""Rewards of transitions: a net of the state, the next state and whether it ended."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["TransitionReward", "transition_reward"]


class TransitionReward(nn.Module):
    """R(s, s', done): needs no action, so that logs of observations alone can teach it."""

    def __init__(self, obs_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = StackedMLP(1, (2 * obs_dim + 1, *hidden, 1))

    def forward(
        self, obs: Float[Tensor, "B d"], next_obs: Float[Tensor, "B d"], ended: Float[Tensor, "B"]
    ) -> Float[Tensor, "B"]:
        return self.net(torch.cat([obs, next_obs, ended[:, None]], -1))[0, :, 0]


@part
def transition_reward(spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256)) -> nn.Module:
    """A perceptron from a transition to its reward."""
    return TransitionReward(spaces.obs_dim, tuple(hidden))
