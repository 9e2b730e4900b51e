"""A family of policies in one net, by the coefficient that it was improved with, and the net that
chooses the coefficient for a state.

    pi(a|s, b) = N(tanh mu(s, e(b)), sigma^2),   b = low + (z + 1) / 2 (high - low),  z = tanh(u),
    u ~ N(m(s), sigma_z^2)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.parts import Nets, part
from surpass.policies.acting import NetPolicy
from surpass.policies.gaussian import BoundedGaussian, SquashedGaussian
from surpass.policies.networks import StackedMLP

__all__ = ["Balance", "FamilyGaussian", "at_balance", "balance", "embedded", "family"]


def embedded(b: Float[Tensor, "..."], d: int = 6, n: float = 10_000.0) -> Float[Tensor, "... d"]:
    """sin(b / n^(2 i / d)), cos(b / n^(2 i / d)) for i = 0 .. d / 2 - 1, one pair after the
    other."""
    rate = n ** (-2.0 * torch.arange(d // 2, device=b.device, dtype=b.dtype) / d)
    angle = b[..., None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


class FamilyGaussian(nn.Module):
    """A bounded Gaussian that reads a coefficient beside the observation."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], d: int, n: float,
        log_std: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.d, self.n = d, n
        self.member = BoundedGaussian(obs_dim + d, act_dim, hidden, False, log_std)

    def _read(self, obs: Float[Tensor, "B d"], b: Float[Tensor, "B"]) -> Tensor:
        return torch.cat([obs, embedded(b, self.d, self.n)], -1)

    def forward(self, obs: Float[Tensor, "B d"], b: Float[Tensor, "B"]) -> Float[Tensor, "B k"]:
        return self.member(self._read(obs, b))

    def sample(self, obs: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterized actions, clipped to [-1, 1], and the log-probs of the unclipped ones."""
        return self.member.sample(self._read(obs, b))

    def logp(self, obs: Tensor, action: Tensor, b: Tensor) -> Float[Tensor, "B"]:
        """log pi(a|s, b)."""
        return self.member.logp(self._read(obs, b), action)


class Balance(nn.Module):
    """A squashed Gaussian over coefficients between two bounds, one spread for all states."""

    def __init__(
        self, obs_dim: int, hidden: tuple[int, ...], low: float, high: float,
        log_std: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.low, self.high, self.log_std = low, high, log_std
        self.net = StackedMLP(1, (obs_dim, *hidden, 1))
        self.spread = nn.Parameter(torch.zeros(1))

    def scaled(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """From [-1, 1] to the coefficient."""
        return self.low + 0.5 * (z + 1.0) * (self.high - self.low)

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B"]:
        return self.scaled(torch.tanh(self.net(obs)[0, :, 0]))

    def sample(self, obs: Tensor) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Reparameterized coefficients, and log p(z|s): the density before scaling."""
        mean = self.net(obs)[0]
        log_std = self.spread.clamp(*self.log_std).expand_as(mean)
        u = mean + log_std.exp() * torch.randn_like(mean)
        return self.scaled(torch.tanh(u)[:, 0]), SquashedGaussian.density(u, mean, log_std)


@part
def family(
    spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256), d: int = 6, n: float = 10_000.0,
    log_std: tuple[float, float] = (-5.0, 2.0),
) -> nn.Module:  # fmt: skip
    """A Gaussian policy that is also told a coefficient, as `d` sines and cosines.

    Raises:
        InputError: when actions are discrete, or d is odd.
    """
    if spaces.discrete:
        raise InputError(
            "a family of Gaussian policies needs continuous actions, and here they are discrete; "
            "bc and iql fit both kinds"
        )
    if d % 2:
        raise InputError(f"d={d}: sines and cosines come in pairs")
    return FamilyGaussian(spaces.obs_dim, spaces.action_dim, tuple(hidden), d, n, log_std)


@part
def balance(
    spaces: Spaces, /, low: float = 1.0, high: float = 5.0, hidden: tuple[int, ...] = (256, 256),
    log_std: tuple[float, float] = (-10.0, 2.0),
) -> nn.Module:  # fmt: skip
    """A distribution over coefficients between `low` and `high` for every state."""
    return Balance(spaces.obs_dim, tuple(hidden), low, high, log_std)


@part
def at_balance(
    nets: Nets, roles: object, /, draw: bool = False, pi: str = "pi", balance: str = "balance"
) -> NetPolicy:
    """The member of the family that the central coefficient of a state names: its central action,
    or a `draw` with its log-probability."""

    def choose(obs: Tensor) -> tuple[Tensor, Tensor | None]:
        b = nets[balance](obs)
        return nets[pi].sample(obs, b) if draw else (nets[pi](obs, b), None)

    return NetPolicy(choose)
