"""Flows sampled with noise at every step, so that each step is a decision whose density is known.

What is decided on is (condition, x, i / F), i of F steps from noise; the decision is the next x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.denoising import flow_levels, flow_noise, flow_step, velocity_loss
from surpass.objectives.gaussian_decisions import Drawn
from surpass.parts import part
from surpass.policies.denoisers import Denoiser
from surpass.policies.diffusion import continuous_only

__all__ = ["NoisyFlow", "noisy", "noisy_flow"]


class NoisyFlow(nn.Module):
    """A flow that draws along the deterministic path, and learns along a noisy one.

    log p of a step is the mean over dimensions of its Gaussian's log-density, so that it does not
    grow with the size of what is generated; clip ranges are small accordingly.

    Args:
        net: the velocity. size: of x. steps, draws: of the noisy and of the deterministic path.
        levels: shares of noise before each noisy step, and 0, [F + 1]. sigma: of each, [F].
        shift: of the levels of the deterministic path.
    """

    levels: Tensor
    sigma: Tensor
    fine: Tensor

    def __init__(
        self, net: Denoiser, size: int, levels: Float[Tensor, "F+1"], sigma: Float[Tensor, "F"],
        draws: int, shift: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.size, self.steps = net, size, len(sigma)
        self.register_buffer("levels", levels)
        self.register_buffer("sigma", sigma)
        self.register_buffer("fine", flow_levels(draws, shift))

    def imitation(self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]) -> Tensor:
        """Flow matching: the velocity's error at one random time a row, [B]."""
        return velocity_loss(self.net.at(obs), action)

    # ------------------------------------------------------------------------------------------
    # along the noisy path

    def _gaussian(
        self, obs: Tensor, x: Tensor, place: Float[Tensor, "N"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, deviation and size of the step from x."""
        index = (place * self.steps).round().long()
        level = self.levels[index]
        step = level - self.levels[index + 1]
        velocity = self.net(x, 1.0 - level, obs)
        return *flow_step(velocity, x, level, step, self.sigma[index]), step

    def drawn(self, obs: Float[Tensor, "N e"], action: Float[Tensor, "N k"]) -> Drawn:
        """Steps to `action` beside what they are drawn from."""
        wide = obs.shape[-1] - self.size - 1
        condition, x, place = obs.split([wide, self.size, 1], -1)
        mean, std, step = self._gaussian(condition, x, place[..., 0])
        return Drawn(action, mean, std, _mean_density(action, mean, std), step)

    def logp(self, obs: Float[Tensor, "N e"], action: Float[Tensor, "N k"]) -> Float[Tensor, "N"]:
        """log p of a step, the mean over dimensions."""
        return self.drawn(obs, action).logp

    @torch.no_grad()
    def walk(self, obs: Float[Tensor, "B d"]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Where a noisy path ends, [B, k], and its decisions, [B, F, ...]."""
        x = torch.randn(obs.shape[0], self.size, device=obs.device)
        rows: list[tuple[Tensor, ...]] = []
        for i in range(self.steps):
            place = x.new_full((len(x),), i / self.steps)
            mean, std, _ = self._gaussian(obs, x, place)
            after = mean + std * torch.randn_like(mean)
            seen = torch.cat([obs, x, place[:, None]], -1)
            rows.append((seen, after, _mean_density(after, mean, std), torch.ones_like(place)))
            x = after
        names = ("obs", "action", "behavior_logp", "mask")
        return x, {
            n: torch.stack(v, 1) for n, v in zip(names, zip(*rows, strict=True), strict=True)
        }

    # ------------------------------------------------------------------------------------------
    # along the deterministic path

    def decode(self, obs: Float[Tensor, "B d"], noise: Float[Tensor, "... B k"]) -> Tensor:
        """What noise flows to, the same each time."""
        x = noise
        for i in range(len(self.fine) - 1):
            level = self.fine[i].expand(x.shape[:-1])
            x = x + self.net(x, 1.0 - level, obs) * (self.fine[i] - self.fine[i + 1])
        return x

    def sample(self, obs: Float[Tensor, "B d"], samples: int | None = None) -> tuple[Tensor, None]:
        """Draws [B, k] or [m, B, k]; their density is not computed."""
        lead = () if samples is None else (samples,)
        noise = torch.randn(*lead, obs.shape[0], self.size, device=obs.device)
        return self.decode(obs, noise), None

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        """What no noise flows to."""
        return self.decode(obs, torch.zeros(obs.shape[0], self.size, device=obs.device))


def _mean_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    standard = (x - mean) / std
    return (-0.5 * standard.square() - std.log() - 0.9189385332046727).mean(-1)


def noisy(
    flow: Any, steps: int = 10, noise: float = 0.7, constant: bool = False, shift: float = 1.0,
    draws: int = 40,
) -> NoisyFlow:  # fmt: skip
    """A trained flow net (`Flow` or `NoisyFlow`) as one whose noisy steps are decisions: the same
    velocity under another sampler.

    Args:
        steps: of the noisy path. noise: its scale; `constant`, sigma itself at every step.
        shift: above 1, more of the steps at high noise. draws: steps of the deterministic path.

    Raises:
        InputError: when it is no flow net, or there are fewer than 2 steps, or no noise.
    """
    if not isinstance(getattr(flow, "net", None), Denoiser):
        raise InputError(f"a {type(flow).__name__} is no flow: hand in the net of flow() matching")
    if steps < 2 or noise <= 0:
        raise InputError(f"steps={steps}, noise={noise}: at least 2 steps, and noise above 0")
    levels = flow_levels(steps, shift)
    return NoisyFlow(flow.net, flow.size, levels, flow_noise(levels, noise, constant), draws, shift)


@part
def noisy_flow(
    spaces: Spaces, /, steps: int = 10, noise: float = 0.7, constant: bool = False,
    shift: float = 1.0, draws: int = 40, hidden: int = 256, blocks: int = 3, expansion: int = 4,
) -> nn.Module:  # fmt: skip
    """A flow that learns along `steps` noisy steps and draws along `draws` deterministic ones.

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "a flow policy")
    size = spaces.action_dim
    levels = flow_levels(steps, shift)
    net = Denoiser(size, spaces.obs_dim, hidden, blocks, 0, expansion)
    return NoisyFlow(net, size, levels, flow_noise(levels, noise, constant), draws, shift)
