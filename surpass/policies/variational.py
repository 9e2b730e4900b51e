"""A conditional variational autoencoder of logged actions: how likely an action is in a state.

z ~ N(0, I), a ~ N(decode(s, z), beta / 4 I), and q(z|s, a) = N(mu(s, a), sigma(s, a)^2) encodes.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.networks import StackedMLP

__all__ = ["ActionVAE", "action_vae"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class ActionVAE(nn.Module):
    """Encoder and decoder are perceptrons; decoded actions lie in [-1, 1]."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], latent: int, beta: float,
        log_std: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent, self.beta, self.log_std = latent, beta, log_std
        self.encoder = StackedMLP(1, (obs_dim + act_dim, *hidden, 2 * latent))
        self.decoder = StackedMLP(1, (obs_dim + latent, *hidden, act_dim))

    def encode(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]
    ) -> tuple[Float[Tensor, "B z"], Float[Tensor, "B z"]]:
        """Mean and log-std of q(z|s, a)."""
        mean, log_std = self.encoder(torch.cat([obs, action], -1))[0].chunk(2, -1)
        return mean, log_std.clamp(*self.log_std)

    def decode(
        self, obs: Float[Tensor, "B d"], z: Float[Tensor, "m B z"]
    ) -> Float[Tensor, "m B k"]:
        """The central action of every code."""
        return torch.tanh(self.decoder.mixed(obs, z)[0])

    def _encoded(self, obs: Tensor, action: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = self.encode(obs, action)
        noise = torch.randn(samples, *mean.shape, device=mean.device)
        return mean, log_std, mean + log_std.exp() * noise

    def reconstructed(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"], samples: int = 1
    ) -> tuple[Float[Tensor, "m B k"], Float[Tensor, "B"]]:
        """decode(s, z), z ~ q(z|s, a), and KL(q || N(0, I)) / dim(z)."""
        mean, log_std, z = self._encoded(obs, action, samples)
        apart = 0.5 * (mean.square() + (2.0 * log_std).exp() - 2.0 * log_std - 1.0).mean(-1)
        return self.decode(obs, z), apart

    def imitation(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"], samples: int = 1
    ) -> Float[Tensor, "B"]:
        """|decode(s, z) - a|^2 / k + beta KL(q || N(0, I)) / dim(z), z ~ q, mean over `samples`.

        Where codes have twice as many dimensions as actions it is, times 2 k / beta and up to a
        constant, an upper bound of -log p(a|s).
        """
        decoded, apart = self.reconstructed(obs, action, samples)
        return (decoded - action).square().mean(-1).mean(0) + self.beta * apart

    def log_density(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"], samples: int = 10
    ) -> Float[Tensor, "B"]:
        """log (1 / L) sum_l N(a; decode(s, z_l), beta / 4) N(z_l; 0, I) / q(z_l|s, a), z_l ~ q: in
        expectation a lower bound of log p(a|s) that is tight as L = `samples` grows.

        Importance Weighted Autoencoders (2015).
        """
        mean, log_std, z = self._encoded(obs, action, samples)
        spread = math.sqrt(self.beta / 4.0)
        error = (action - self.decode(obs, z)) / spread
        decoded = (-0.5 * error.square() - math.log(spread) - _HALF_LOG_TWO_PI).sum(-1)
        prior = -0.5 * z.square()
        code = -0.5 * ((z - mean) * (-log_std).exp()).square() - log_std
        weight = decoded + (prior - code).sum(-1)
        return torch.logsumexp(weight, 0) - math.log(samples)


@part
def action_vae(
    spaces: Spaces, /, hidden: tuple[int, ...] = (750, 750), latent: int | None = None,
    beta: float = 0.5, log_std: tuple[float, float] = (-4.0, 15.0),
) -> nn.Module:  # fmt: skip
    """A conditional variational autoencoder of actions, with codes of `latent` numbers (twice an
    action's where not given).

    Raises:
        InputError: when actions are discrete, or beta is not positive.
    """
    if spaces.discrete:
        raise InputError(
            "a variational density of actions needs continuous ones, and here they are discrete; "
            "bc and iql fit both kinds"
        )
    if beta <= 0.0:
        raise InputError(f"beta={beta:g}: the decoder's variance, beta / 4, is positive")
    k = spaces.action_dim
    codes = 2 * k if latent is None else latent
    return ActionVAE(spaces.obs_dim, k, tuple(hidden), codes, beta, log_std)
