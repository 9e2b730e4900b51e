"""Continuous policies of several agents: each sees its own block of the observation and moves its
own block of the action.

Observations are rows [B, n d] and actions rows [B, n k] of all agents in order. One net serves all,
and is told who asks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.denoising import normal_logp
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["AgentActor", "AgentGaussian", "agent_actor", "agent_gaussian"]


class _Each(nn.Module):
    """A perceptron for all agents, which is told who asks; [B, n, k]."""

    def __init__(self, spaces: Spaces, agents: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        if spaces.discrete or spaces.obs_dim % agents or spaces.action_dim % agents:
            raise InputError(
                f"{agents} agents with continuous actions expected, obs [rows, {agents} d] and "
                f"action [rows, {agents} k]; here are observations of {spaces.obs_dim} numbers and "
                f"actions of {spaces.action_dim or 'one whole'} number(s)"
            )
        self.agents, self.size = agents, spaces.action_dim // agents
        self.net = StackedMLP(1, (spaces.obs_dim // agents + agents, *hidden, self.size))

    def forward(self, obs: Float[Tensor, "B nd"]) -> Float[Tensor, "B n k"]:
        own = obs.reshape(obs.shape[0], self.agents, -1)
        who = torch.eye(self.agents, device=obs.device).expand(len(own), -1, -1)
        out = self.net(torch.cat([own, who], -1).flatten(0, 1))[0]
        return torch.tanh(out).reshape(len(own), self.agents, self.size)


class AgentActor(nn.Module):
    """a_i = tanh(f(o_i, i)), in [-1, 1]."""

    def __init__(self, spaces: Spaces, agents: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.each = _Each(spaces, agents, hidden)

    def forward(self, obs: Float[Tensor, "B nd"]) -> Float[Tensor, "B nk"]:
        return self.each(obs).flatten(1)

    def imitation(self, obs: Tensor, action: Float[Tensor, "B nk"]) -> Float[Tensor, "B"]:
        """The mean squared error over all dimensions."""
        return (self(obs) - action).square().mean(-1)


class AgentGaussian(nn.Module):
    """a_i ~ N(tanh(f(o_i, i)), sigma^2), one sigma per dimension and agent."""

    def __init__(self, spaces: Spaces, agents: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.each = _Each(spaces, agents, hidden)
        self.log_std = nn.Parameter(torch.zeros(agents, self.each.size))

    def logps(self, obs: Tensor, action: Float[Tensor, "B nk"]) -> Float[Tensor, "B n"]:
        """log beta_i(a_i | o_i) of every agent."""
        mean = self.each(obs)
        return normal_logp(action.reshape(mean.shape), mean, self.log_std.clamp(-4.0, 1.0).exp())

    def forward(self, obs: Float[Tensor, "B nd"]) -> Float[Tensor, "B nk"]:
        return self.each(obs).flatten(1)

    def imitation(self, obs: Tensor, action: Float[Tensor, "B nk"]) -> Float[Tensor, "B"]:
        """-sum_i log beta_i(a_i | o_i)."""
        return -self.logps(obs, action).sum(-1)


@part
def agent_actor(
    spaces: Spaces, /, agents: int = 1, hidden: tuple[int, ...] = (64, 64)
) -> nn.Module:
    """A deterministic policy for each of `agents` agents.

    Raises:
        InputError: when observations or actions are not those of so many agents.
    """
    return AgentActor(spaces, agents, tuple(hidden))


@part
def agent_gaussian(
    spaces: Spaces, /, agents: int = 1, hidden: tuple[int, ...] = (64, 64)
) -> nn.Module:
    """A Gaussian policy for each of `agents` agents, as a model of who logged.

    Raises:
        InputError: when observations or actions are not those of so many agents.
    """
    return AgentGaussian(spaces, agents, tuple(hidden))
