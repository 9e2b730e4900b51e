"""Flow policies that are trained through all their steps: the Euler rollout x <- x + v / F is a
residual recurrence, and the form of its velocity decides what becomes of the gradient on the way.

    plain      v = h(s, x, t), a perceptron
    gated      v = z (h - x), z = sigmoid(g(s, x, t)) near 1 at first: a gated recurrence
    decoder    v = linear(LN(blocks)), transformer decoder blocks on the token of x and t that read
               the state's

Noise is added at each step, so that the density of the whole path is known: the log pi of SAC.

SAC Flow: Sample-Efficient Reinforcement Learning of Flow-Based Policies via
Velocity-Reparameterized Sequential Modeling (2025): the gated one is its Flow-G, the decoder its
Flow-T.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, silu, softplus

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.denoising import Predict, euler, noisy_euler, velocity_loss
from surpass.parts import part
from surpass.policies.denoisers import time_features
from surpass.policies.diffusion import continuous_only

__all__ = [
    "DecoderVelocity",
    "GatedVelocity",
    "PlainVelocity",
    "RecurrentFlow",
    "recurrent_flow",
]

_EDGE = 0.999
_TIME = 8


def _seen(obs: Tensor, x: Tensor, time: Tensor) -> Float[Tensor, "... r"]:
    """State, x and time in one."""
    return torch.cat([obs.expand(*x.shape[:-1], -1), x, time_features(time, _TIME)], -1)


class PlainVelocity(nn.Module):
    """v = h(s, x, t)."""

    def __init__(self, obs_dim: int, size: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(obs_dim + size + _TIME, hidden)
        self.out = nn.Linear(hidden, size)

    def at(self, obs: Float[Tensor, "B d"]) -> Predict:
        """The velocity as a function of x and time."""
        return lambda x, time: self.out(silu(self.into(_seen(obs, x, time))))


class GatedVelocity(nn.Module):
    """v = z (h - x), z = sigmoid(gate): the gate's last layer starts at 0 and its bias at 5, so
    that the gate is open (z = 0.993) at first."""

    def __init__(self, obs_dim: int, size: int, hidden: int) -> None:
        super().__init__()
        self.candidate = PlainVelocity(obs_dim, size, hidden)
        self.gate = PlainVelocity(obs_dim, size, hidden)
        nn.init.zeros_(self.gate.out.weight)
        nn.init.constant_(self.gate.out.bias, 5.0)

    def at(self, obs: Float[Tensor, "B d"]) -> Predict:
        """The velocity as a function of x and time."""
        candidate, gate = self.candidate.at(obs), self.gate.at(obs)
        return lambda x, time: torch.sigmoid(gate(x, time)) * (candidate(x, time) - x)


class _DecoderBlock(nn.Module):
    """Self-attention, attention to the state, and a perceptron, each x <- x + f(LN(x)).

    A token sees itself alone (the mask is diagonal) and there is one token of the state: a softmax
    over one key is 1, so that both attentions are what they read, mapped linearly.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.own, self.state = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, token: Tensor, state: Tensor) -> Tensor:
        token = token + self.own(self.norms[0](token)) + self.state(state)
        return token + self.back(gelu(self.wide(self.norms[1](token))))


class DecoderVelocity(nn.Module):
    """v from transformer decoder blocks: the token of x and time is the query, the state's token
    the memory."""

    def __init__(self, obs_dim: int, size: int, width: int, layers: int = 2) -> None:
        super().__init__()
        self.token, self.time = nn.Linear(size, width), nn.Linear(_TIME, width)
        self.state = nn.Sequential(
            nn.Linear(obs_dim, width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width)
        )
        self.blocks = nn.ModuleList(_DecoderBlock(width) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, size)

    def at(self, obs: Float[Tensor, "B d"]) -> Predict:
        """The velocity as a function of x and time; the state is read once for all steps."""
        state = self.state(obs)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            token = self.token(x) + self.time(time_features(time, _TIME))
            for block in self.blocks:
                token = block(token, state)
            return self.out(self.norm(token))

        return predict


_VELOCITIES: dict[str, Callable[[int, int, int], nn.Module]] = {
    "plain": PlainVelocity,
    "gated": GatedVelocity,
    "decoder": DecoderVelocity,
}


class RecurrentFlow(nn.Module):
    """a = tanh(x_F): x_0 ~ N(0, I), x <- x + v / F + sigma(s) z, F steps, reparameterized.

    `log_std` bounds log sigma, which a net of the state gives; equal bounds fix it.
    """

    def __init__(
        self, obs_dim: int, size: int, hidden: int, steps: int, net: nn.Module,
        log_std: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.size, self.steps, self.log_std = net, size, steps, log_std
        self.spread = nn.Sequential(nn.Linear(obs_dim, hidden), nn.SiLU(), nn.Linear(hidden, size))

    def velocity(self, obs: Float[Tensor, "B d"]) -> Predict:
        """The velocity at x and time."""
        return self.net.at(obs)  # type: ignore[operator]

    def deviation(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        """sigma(s), the noise of every step."""
        low, high = self.log_std
        return (low + 0.5 * (high - low) * (torch.tanh(self.spread(obs)) + 1.0)).exp()

    def sample(self, obs: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Actions [B, k] or [m, B, k] and the log-density of the path that led there, the tanh
        counted: log N(x_0) + sum log N(x_{i+1}; x_i + v / F, sigma^2) - sum log(1 - a^2)."""
        lead = () if samples is None else (samples,)
        start = torch.randn(*lead, obs.shape[0], self.size, device=obs.device)
        x, logp = noisy_euler(self.velocity(obs), start, self.steps, self.deviation(obs))
        squash = 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))
        return torch.tanh(x), logp - squash.sum(-1)

    def imitation(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]
    ) -> Float[Tensor, "B"]:
        """The velocity's error at one random time a row, toward artanh(a)."""
        end = torch.atanh(action.clamp(-_EDGE, _EDGE))
        return velocity_loss(self.velocity(obs), end)

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        """Where a path without noise, from the middle of its starts, ends."""
        start = torch.zeros(obs.shape[0], self.size, device=obs.device)
        return torch.tanh(euler(self.velocity(obs), start, self.steps))


@part
def recurrent_flow(
    spaces: Spaces, /, steps: int = 4, hidden: int = 256, velocity: str = "gated",
    log_std: tuple[float, float] = (-5.0, 2.0),
) -> nn.Module:  # fmt: skip
    """A flow policy with noise at each step and the density of its path; `velocity` is "gated",
    "decoder" or "plain".

    Raises:
        InputError: when actions are discrete, or there is no such velocity.
    """
    continuous_only(spaces, "a flow policy")
    if velocity not in _VELOCITIES:
        raise InputError(f"no velocity {velocity!r}; there are {', '.join(_VELOCITIES)}")
    net = _VELOCITIES[velocity](spaces.obs_dim, spaces.action_dim, hidden)
    return RecurrentFlow(spaces.obs_dim, spaces.action_dim, hidden, steps, net, log_std)
