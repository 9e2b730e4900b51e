"""Diffusion policies: actions in [-1, 1] by removing noise, K steps (`objectives.denoising`)."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.denoising import (
    ancestral,
    cosine_noise,
    diffused,
    even_levels,
    implicit,
    linear_noise,
    noise_guess,
    noise_loss,
    one_pass,
    variance_preserving,
)
from surpass.parts import part
from surpass.policies.denoisers import Denoiser, EnergyDenoiser

__all__ = ["Diffusion", "EnergyDiffusion", "continuous_only", "diffusion", "energy_diffusion"]

_SCHEDULES = {
    "vp": variance_preserving, "vp-20": partial(variance_preserving, high=20.0),
    "cosine": cosine_noise, "linear": linear_noise,
}  # fmt: skip


def continuous_only(spaces: Spaces, what: str) -> None:
    """Refuse discrete actions.

    Raises:
        InputError: when they are discrete.
    """
    if spaces.discrete:
        raise InputError(f"{what} needs continuous actions, and here they are discrete")


class Diffusion(nn.Module):
    """p(a|s) as a chain of K denoising steps; it samples, and its density is not known."""

    abar: Tensor

    def __init__(
        self, net: Denoiser, size: int, steps: int, schedule: str, temperature: float,
        fast: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.size, self.temperature = net, size, temperature
        self.register_buffer("abar", _SCHEDULES[schedule](steps))
        self.fast = even_levels(self.abar, fast) if fast else ()

    def imitation(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"],
        label: int | Int[Tensor, "B"] = 0,
    ) -> Float[Tensor, "B"]:  # fmt: skip
        """The noise prediction error of one random level a row: weighed by w(s, a), its minimum
        samples from w p."""
        return noise_loss(self.net.at(obs, label), action, self.abar)

    def one_pass(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"]
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B k"]]:
        """At one random level a row: the noise prediction's squared error, mean over dimensions,
        and the action that the same pass makes of the noisy one (it has a gradient)."""
        level = torch.randint(self.abar.shape[0], action.shape[:-1], device=action.device)
        noise = torch.randn_like(action)
        guess, clean = one_pass(self.net.at(obs), action, self.abar, level, noise, clip=1.0)
        return (guess - noise).square().mean(-1), clean

    def noise_at(
        self, obs: Float[Tensor, "B d"], action: Float[Tensor, "B k"], low: float, high: float
    ) -> tuple[Float[Tensor, "B k"], Float[Tensor, "B k"], Float[Tensor, "B"]]:
        """The noise that an action is seen to have, the noise that it was given, and abar, at a
        level a row drawn evenly from the shares [low, high] of the K levels."""
        steps = self.abar.shape[0]
        share = low + (high - low) * torch.rand(action.shape[:-1], device=action.device)
        level = (share * steps).long().clamp(max=steps - 1)
        noise = torch.randn_like(action)
        return noise_guess(self.net.at(obs), action, self.abar, level, noise), noise, (
            self.abar[level])  # fmt: skip

    def decode(
        self, obs: Float[Tensor, "B d"], noise: Float[Tensor, "... B k"], steps: int | None = None
    ) -> Float[Tensor, "... B k"]:
        """The deterministic sampler (DDIM): an action from noise, the same one each time."""
        return implicit(self.net.at(obs), noise, self.abar, steps, clip=1.0)

    def sample(self, obs: Float[Tensor, "B d"], samples: int | None = None) -> tuple[Tensor, None]:
        """Actions [B, k] or [m, B, k] by ancestral sampling; where the policy is fast, by the
        second-order solver on some of the levels."""
        lead = () if samples is None else (samples,)
        noise = torch.randn(*lead, obs.shape[0], self.size, device=obs.device)
        at = self.net.at(obs)
        if self.fast:
            return implicit(at, noise, self.abar, self.fast, clip=1.0, order=2), None
        return ancestral(at, noise, self.abar, self.temperature, clip=1.0), None

    def forward(self, obs: Float[Tensor, "B d"]) -> Float[Tensor, "B k"]:
        """The action that no noise decodes to."""
        return self.decode(obs, torch.zeros(obs.shape[0], self.size, device=obs.device))


@part
def diffusion(
    spaces: Spaces, /, steps: int = 5, hidden: int = 256, blocks: int = 3, schedule: str = "vp",
    temperature: float = 1.0, labels: int = 0, expansion: int = 4, chunk: int = 1, fast: int = 0,
) -> nn.Module:  # fmt: skip
    """A diffusion policy of `steps` levels; `schedule` is "vp", "vp-20" (twice the noise), "cosine"
    or "linear"; `chunk` actions at once. With `fast`, it samples by so many steps of a
    second-order solver in place of all levels.

    Raises:
        InputError: when actions are discrete, or there is no such schedule.
    """
    continuous_only(spaces, "a diffusion policy")
    _known(schedule)
    size = spaces.action_dim * chunk
    net = Denoiser(size, spaces.obs_dim, hidden, blocks, labels, expansion)
    return Diffusion(net, size, steps, schedule, temperature, fast)


def _known(schedule: str) -> None:
    if schedule not in _SCHEDULES:
        raise InputError(f"no noise schedule {schedule!r}; there are {', '.join(_SCHEDULES)}")


class EnergyDiffusion(Diffusion):
    """A diffusion policy whose log-density under noise is known up to a constant: that of an
    `EnergyDenoiser`."""

    net: EnergyDenoiser

    def disturbed(
        self, action: Float[Tensor, "... B k"]
    ) -> tuple[Float[Tensor, "... B k"], Int[Tensor, "B"]]:
        """Actions under noise, each under its own, at one random level for all that a row has."""
        level = torch.randint(self.abar.shape[0], action.shape[-2:-1], device=action.device)
        return diffused(action, self.abar[level], torch.randn_like(action)), level

    def energy(
        self, obs: Float[Tensor, "B d"], noisy: Float[Tensor, "... B k"], level: Int[Tensor, "B"]
    ) -> Float[Tensor, "... B"]:
        """log p(noisy | s) at a level, but for what depends on s and the level alone."""
        time = ((level + 1) / self.abar.shape[0]).expand(noisy.shape[:-1])
        return self.net.energy(noisy, time, obs)


@part
def energy_diffusion(
    spaces: Spaces, /, steps: int = 1000, hidden: int = 256, blocks: int = 3,
    schedule: str = "vp-20", temperature: float = 1.0, expansion: int = 4, fast: int = 15,
) -> nn.Module:  # fmt: skip
    """A diffusion policy that guesses noise by the slope of one number; otherwise `diffusion`.

    Raises:
        InputError: when actions are discrete, or there is no such schedule.
    """
    continuous_only(spaces, "a diffusion policy")
    _known(schedule)
    size, abar = spaces.action_dim, _SCHEDULES[schedule](steps)
    net = EnergyDenoiser(size, spaces.obs_dim, abar, hidden, blocks, expansion=expansion)
    return EnergyDiffusion(net, size, steps, schedule, temperature, fast)
