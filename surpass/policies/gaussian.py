"""Gaussian policies for continuous actions in [-1, 1], squashed or not, alone or mixed.

squashed:   a = tanh(u), u ~ N(mu(s), sigma(s)^2),
            log pi(a|s) = log N(u) - sum_k log(1 - a_k^2)
bounded:    a ~ N(tanh(mu(s)), sigma^2), one sigma for all states (IQL's policy)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.discrete import Categorical
from surpass.policies.networks import StackedMLP

__all__ = ["BoundedGaussian", "SquashedGaussian", "actor", "gaussian", "mixture"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_EDGE = 1.0 - 1e-6


def _normal_logp(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    standard = (u - mean) * (-log_std).exp()
    return -0.5 * standard.square() - log_std - _HALF_LOG_TWO_PI


def _log_one_minus_tanh_squared(u: Tensor) -> Tensor:
    return 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))


class SquashedGaussian(nn.Module):
    """The tanh of a Gaussian, or of a mixture of `components` Gaussians.

    `log_std` is clamped to its bounds. `forward` gives the tanh of the mean (of the heaviest
    component).
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        hidden: tuple[int, ...],
        norm: bool,
        log_std: tuple[float, float],
        components: int = 1,
    ) -> None:
        super().__init__()
        self.act_dim, self.components, self.log_std = act_dim, components, log_std
        width = components * (2 * act_dim + (components > 1))
        self.net = StackedMLP(1, (obs_dim, *hidden, width), norm)

    def parameters_of(self, obs: Float[Tensor, "B d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Before the tanh: `mean` [B, c, k], `log_std` [B, c, k], log weights [B, c]."""
        out = self.net(obs)[0]
        c, k = self.components, self.act_dim
        mean, log_std = out[:, : c * k], out[:, c * k : 2 * c * k]
        log_std = log_std.clamp(*self.log_std).reshape(-1, c, k)
        logits = out[:, 2 * c * k :] if c > 1 else torch.zeros_like(out[:, :1])
        return mean.reshape(-1, c, k), log_std, torch.log_softmax(logits, -1)

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        mean, _, weights = self.parameters_of(obs)
        if self.components == 1:
            return torch.tanh(mean[:, 0])
        best = weights.argmax(-1)[:, None, None].expand(-1, 1, self.act_dim)
        return torch.tanh(mean.gather(1, best)[:, 0])

    def sample(self, obs: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterized actions and their log-probs: [B, k] and [B], or [m, B, k] and [m, B]."""
        mean, log_std, weights = self.parameters_of(obs)
        lead = () if samples is None else (samples,)
        if self.components == 1:
            mean, log_std = mean[:, 0], log_std[:, 0]
            u = mean + log_std.exp() * torch.randn(*lead, *mean.shape, device=mean.device)
            return torch.tanh(u), self.density(u, mean, log_std)
        shape = (*lead, mean.shape[0], self.components)
        gumbel = -torch.log(-torch.log(torch.rand(shape, device=mean.device).clamp(1e-20, 1.0)))
        chosen = (weights + gumbel).argmax(-1)[..., None, None]
        chosen = chosen.expand(*lead, mean.shape[0], 1, self.act_dim)

        def of(values: Tensor) -> Tensor:
            return values.expand(*lead, *values.shape).gather(-2, chosen)[..., 0, :]

        at = of(mean)
        u = at + of(log_std).exp() * torch.randn(at.shape, device=at.device)
        return torch.tanh(u), self._logp_of(u, mean, log_std, weights)

    def logp(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "... B k"]
    ) -> Float[Tensor, "... B"]:
        """log pi(a|s); actions at the edge of the box are moved inside by 1e-6."""
        u = torch.atanh(action.clamp(-_EDGE, _EDGE))
        return self._logp_of(u, *self.parameters_of(obs))

    def _logp_of(self, u: Tensor, mean: Tensor, log_std: Tensor, weights: Tensor) -> Tensor:
        per = _normal_logp(u[..., None, :], mean, log_std).sum(-1) + weights
        return torch.logsumexp(per, -1) - _log_one_minus_tanh_squared(u).sum(-1)

    @staticmethod
    def density(
        u: Float[Tensor, "... k"], mean: Float[Tensor, "... k"], log_std: Float[Tensor, "... k"]
    ) -> Float[Tensor, "..."]:
        """The log-density of tanh(u), u from one Gaussian."""
        return (_normal_logp(u, mean, log_std) - _log_one_minus_tanh_squared(u)).sum(-1)

    def imitation(self, obs: Tensor, action: Tensor) -> Float[Tensor, "B"]:
        """-log pi(a|s)."""
        return -self.logp(obs, action)


class BoundedGaussian(nn.Module):
    """N(tanh(mu(s)), sigma^2) with one learned sigma per dimension, the same in all states."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], norm: bool,
        log_std: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.net = StackedMLP(1, (obs_dim, *hidden, act_dim), norm)
        self.spread = nn.Parameter(torch.zeros(act_dim))
        self.log_std = log_std

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        return torch.tanh(self.net(obs)[0])

    def logp(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "... B k"]
    ) -> Float[Tensor, "... B"]:
        """log pi(a|s)."""
        return _normal_logp(action, self(obs), self.spread.clamp(*self.log_std)).sum(-1)

    def sample(self, obs: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterized actions, clipped to [-1, 1], and the log-probs of the unclipped ones."""
        mean, log_std = self(obs), self.spread.clamp(*self.log_std)
        lead = () if samples is None else (samples,)
        u = mean + log_std.exp() * torch.randn(*lead, *mean.shape, device=mean.device)
        return u.clamp(-1.0, 1.0), _normal_logp(u, mean, log_std).sum(-1)

    def imitation(self, obs: Tensor, action: Tensor) -> Float[Tensor, "B"]:
        """-log pi(a|s)."""
        return -self.logp(obs, action)


def _continuous(spaces: Spaces) -> None:
    if spaces.discrete:
        raise InputError(
            "a Gaussian policy needs continuous actions, and here they are discrete; "
            "bc and iql fit both kinds"
        )


@part
def gaussian(
    spaces: Spaces,
    /,
    hidden: tuple[int, ...] = (256, 256),
    norm: bool = False,
    squashed: bool = True,
    log_std: tuple[float, float] = (-5.0, 2.0),
) -> nn.Module:
    """A Gaussian policy: squashed, its spread a function of the state; or bounded, one spread.

    Raises:
        InputError: when actions are discrete.
    """
    _continuous(spaces)
    if squashed:
        return SquashedGaussian(spaces.obs_dim, spaces.action_dim, tuple(hidden), norm, log_std)
    return BoundedGaussian(spaces.obs_dim, spaces.action_dim, tuple(hidden), norm, log_std)


@part
def mixture(
    spaces: Spaces,
    /,
    components: int = 4,
    hidden: tuple[int, ...] = (256, 256),
    norm: bool = False,
    log_std: tuple[float, float] = (-5.0, 2.0),
) -> nn.Module:
    """A squashed mixture of Gaussians.

    Raises:
        InputError: when actions are discrete.
    """
    _continuous(spaces)
    return SquashedGaussian(
        spaces.obs_dim, spaces.action_dim, tuple(hidden), norm, log_std, components
    )


@part
def actor(
    spaces: Spaces,
    /,
    hidden: tuple[int, ...] = (256, 256),
    norm: bool = False,
    log_std: tuple[float, float] = (-5.0, 2.0),
) -> nn.Module:
    """A stochastic policy for whatever actions there are: the bounded Gaussian, or a categorical
    one."""
    if spaces.discrete:
        return Categorical(spaces.obs_dim, spaces.n_actions, tuple(hidden), norm)
    return BoundedGaussian(spaces.obs_dim, spaces.action_dim, tuple(hidden), norm, log_std)
