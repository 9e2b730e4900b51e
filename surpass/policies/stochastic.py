"""Stochastic policies of policy gradients on control, and the log-probs of whole sequences.

continuous: a ~ N(mu(s), sigma^2), one learned sigma per dimension; the environment clips what lies
outside its bounds, the log-probability is that of the action before. discrete: a softmax.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.divergence import draws_of, entropy, moments_of, read_out
from surpass.objectives.gaussian_decisions import Drawn
from surpass.parts import part
from surpass.policies.discrete import Categorical

__all__ = ["DiagonalGaussian", "TanhMLP", "score", "stochastic"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class TanhMLP(nn.Module):
    """A perceptron with tanh between layers and orthogonal initial weights, `last` the gain of the
    last layer; gives [1, B, o], as an ensemble of one."""

    def __init__(self, sizes: tuple[int, ...], last: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            gain = last if k == len(self.layers) - 1 else math.sqrt(2.0)
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B i"]) -> Float[Tensor, "1 B o"]:
        for layer in self.layers[:-1]:  # type: ignore[index]
            x = torch.tanh(layer(x))
        return self.layers[-1](x)[None]


class DiagonalGaussian(nn.Module):
    """N(mu(s), sigma^2); `forward` gives mu(s), which lies within [-1, 1] where it is bounded."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], start: float,
        bounded: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net = TanhMLP((obs_dim, *hidden, act_dim), 0.01)
        self.log_std = nn.Parameter(torch.full((act_dim,), start))
        self.bounded = bounded

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        mean = self.net(obs)[0]
        return torch.tanh(mean) if self.bounded else mean

    def _density(self, u: Tensor, mean: Tensor) -> Tensor:
        standard = (u - mean) * (-self.log_std).exp()
        return (-0.5 * standard.square() - self.log_std - _HALF_LOG_TWO_PI).sum(-1)

    def logp(self, obs: Float[Tensor, "B d"], action: Float[Tensor, "... B k"]) -> Tensor:
        """log pi(a|s)."""
        return self._density(action, self(obs))

    def drawn(self, obs: Float[Tensor, "N d"], action: Float[Tensor, "N k"]) -> Drawn:
        """Actions beside what they are drawn from."""
        mean = self(obs)
        return Drawn(action, mean, self.log_std.exp(), self._density(action, mean))

    def sample(self, obs: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterized actions, not clipped, and their log-probs."""
        mean = self(obs)
        lead = () if samples is None else (samples,)
        noise = torch.randn(*lead, *mean.shape, device=mean.device)
        action = mean + self.log_std.exp() * noise
        return action, self._density(action, mean)

    def entropy(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B"]:
        """sum over dimensions of log sigma + log(2 pi e) / 2, in nats."""
        total = (self.log_std + _HALF_LOG_TWO_PI + 0.5).sum()
        return total.expand(obs.shape[0])

    def imitation(self, obs: Tensor, action: Tensor) -> Float[Tensor, "B"]:
        """-log pi(a|s)."""
        return -self.logp(obs, action)


@part
def stochastic(
    spaces: Spaces, /, hidden: tuple[int, ...] = (64, 64), log_std: float = 0.0,
    bounded: bool = False,
) -> nn.Module:  # fmt: skip
    """The policy of policy gradients: a softmax, or a Gaussian whose spread starts at
    exp(log_std); `bounded` holds its mean within [-1, 1]."""
    if not spaces.discrete:
        k, sizes = spaces.action_dim, tuple(hidden)
        return DiagonalGaussian(spaces.obs_dim, k, sizes, log_std, bounded)
    policy = Categorical(spaces.obs_dim, spaces.n_actions, (), False)
    policy.net = TanhMLP((spaces.obs_dim, *hidden, spaces.n_actions), 0.01)  # type: ignore[assignment]
    return policy


def score(
    policy: Any, obs: Float[Tensor, "B T d"], action: Tensor, needs: tuple[Any, ...] = ()
) -> tuple[Float[Tensor, "B T"], dict[str, Tensor]]:
    """log pi of every decision, and the statistics that parts need, by name.

    A policy whose decisions depend on one another scores the record itself: `scored(obs, action,
    needs)`.

    Args:
        needs: as `surpass.parts.needs_of` gives them; columns are passed over.

    Raises:
        InputError: when the policy has no such statistic.
    """
    wanted = [need for need in needs if callable(need)]
    if hasattr(policy, "scored"):
        return policy.scored(obs, action, tuple(wanted))
    shape = obs.shape[:2]
    flat, chosen = obs.flatten(0, 1), action.flatten(0, 1)
    if hasattr(policy, "logits"):
        asked = tuple(wanted)
        seen: Any = read_out(policy.logits(flat), chosen.long(), moments_of(asked), draws_of(asked))
        logp = seen.logp
    elif hasattr(policy, "drawn") and any(need is not entropy for need in wanted):
        seen = policy.drawn(flat, chosen)
        logp = seen.logp
    else:
        seen, logp = None, policy.logp(flat, chosen)
    found = {n.__name__: _statistic(policy, n, seen, flat) for n in wanted}
    return logp.reshape(shape), {k: v.reshape(*shape, *v.shape[1:]) for k, v in found.items()}


def _statistic(policy: Any, need: Any, seen: Any, obs: Tensor) -> Tensor:
    """A statistic of decisions [N], as a softmax or a Gaussian has it."""
    if need is entropy and not hasattr(policy, "logits") and hasattr(policy, "entropy"):
        return policy.entropy(obs)
    try:
        return cast(Tensor, need(seen))
    except AttributeError:
        raise InputError(
            f"{type(policy).__name__} has no {need.__name__}; a part of this recipe needs it"
        ) from None
