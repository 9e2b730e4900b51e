"""What the world did: a latent category for every transition, and what it was worth.

Several next states of one action are told apart by a category z. p(z|s, a) says how likely each is,
q(z|s, a, s') which one happened, and a decoder what follows from it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["LatentLuck", "LatentOutcomes", "latent_luck", "latent_outcomes"]


def _encoded(spaces: Spaces, action: Tensor) -> Tensor:
    if not spaces.discrete:
        return action
    every = torch.arange(spaces.n_actions, device=action.device)
    return (action.long()[:, None] == every).float()  # one_hot would ask for data when traced


def _reads(spaces: Spaces) -> int:
    return spaces.obs_dim + (spaces.n_actions or spaces.action_dim)


class LatentOutcomes(nn.Module):
    """A variational autoencoder of the change of state and of the episode's end, [B, d + 1], given
    (s, a), whose latent is one of K categories, so that all its sums are exact."""

    def __init__(self, spaces: Spaces, k: int, hidden: tuple[int, ...], spread: float) -> None:
        super().__init__()
        self.spaces, self.k, self.spread = spaces, k, spread
        reads, told = _reads(spaces), spaces.obs_dim + 1
        self.chances = StackedMLP(1, (reads, *hidden, k))
        self.encoder = StackedMLP(1, (reads + told, *hidden, k))
        self.decoder = StackedMLP(1, (reads + k, *hidden, told))

    def prior(self, obs: Float[Tensor, "B d"], action: Tensor) -> Float[Tensor, "B K"]:
        """log p(z|s, a)."""
        x = torch.cat([obs, _encoded(self.spaces, action)], -1)
        return self.chances(x)[0].log_softmax(-1)

    def posterior(
        self, obs: Float[Tensor, "B d"], action: Tensor, outcome: Float[Tensor, "B e"]
    ) -> Float[Tensor, "B K"]:
        """log q(z|s, a, s')."""
        x = torch.cat([obs, _encoded(self.spaces, action), outcome], -1)
        return self.encoder(x)[0].log_softmax(-1)

    def log_likelihoods(
        self, obs: Float[Tensor, "B d"], action: Tensor, outcome: Float[Tensor, "B e"]
    ) -> Float[Tensor, "B K"]:
        """log p(outcome|s, a, z) for every z: a Gaussian of standard deviation `spread` in each
        entry."""
        x = torch.cat([obs, _encoded(self.spaces, action)], -1)
        every = torch.eye(self.k, device=x.device, dtype=x.dtype)
        both = torch.cat(
            [x[:, None].expand(-1, self.k, -1), every.expand(len(x), -1, -1)], -1
        ).flatten(0, 1)
        mean = self.decoder(both)[0].unflatten(0, (len(x), self.k))
        error = ((outcome[:, None] - mean) / self.spread).square().sum(-1)
        return -0.5 * error - outcome.shape[-1] * math.log(self.spread * math.sqrt(2 * math.pi))


class LatentLuck(nn.Module):
    """b(s, a, z), what each category is worth, not centered yet."""

    def __init__(self, spaces: Spaces, k: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.spaces = spaces
        self.net = StackedMLP(1, (_reads(spaces), *hidden, k))

    def forward(self, obs: Float[Tensor, "B d"], action: Tensor) -> Float[Tensor, "B K"]:
        return self.net(torch.cat([obs, _encoded(self.spaces, action)], -1))[0]


@part
def latent_outcomes(
    spaces: Spaces, /, k: int = 16, hidden: tuple[int, ...] = (256, 256), spread: float = 0.1
) -> nn.Module:
    """A model of outcomes with k categories; `spread` is the standard deviation within one, in
    the units of observations."""
    return LatentOutcomes(spaces, k, tuple(hidden), spread)


@part
def latent_luck(spaces: Spaces, /, k: int = 16, hidden: tuple[int, ...] = (256, 256)) -> nn.Module:
    """What each of k categories of outcomes is worth."""
    return LatentLuck(spaces, k, tuple(hidden))
