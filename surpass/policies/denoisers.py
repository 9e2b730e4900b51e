"""The net of every generative policy: a residual perceptron that reads x, time, observation, label.

Time is given as sines and cosines of several frequencies. LayerNorm and the residual blocks are
what lets a small net fit sharp modes: IDQL: Implicit Q-Learning as an Actor-Critic Method with
Diffusion Policies (2023).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import mish

from surpass.objectives.denoising import Predict

__all__ = ["Denoiser", "EnergyDenoiser", "time_features"]


def time_features(time: Float[Tensor, "..."], width: int) -> Float[Tensor, "... w"]:
    """sin and cos of time at width / 2 frequencies, geometric from pi / 2 to 32 pi."""
    half = width // 2
    frequency = torch.exp(torch.linspace(0.0, math.log(64.0), half, device=time.device))
    angle = 0.5 * math.pi * frequency * time[..., None]
    return torch.cat([angle.sin(), angle.cos()], -1)


class Denoiser(nn.Module):
    """From x [..., B, k], time [..., B], obs [B, d] and a label to [..., B, k].

    Args:
        size, obs_dim: of x and of the observation. hidden: width. blocks: residual blocks, each
            LayerNorm, `expansion` times the width, Mish, and back.
        labels: how many labels there are (0: the net takes none); label 0 is "none given".
    """

    def __init__(
        self, size: int, obs_dim: int, hidden: int = 256, blocks: int = 3, labels: int = 0,
        expansion: int = 4, time: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        self.time = time
        self.labels = nn.Parameter(torch.randn(labels, time)) if labels else None
        reads = size + obs_dim + time + (time if labels else 0)
        self.first = nn.Linear(reads, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(blocks))
        self.wide = nn.ModuleList(nn.Linear(hidden, expansion * hidden) for _ in range(blocks))
        self.back = nn.ModuleList(nn.Linear(expansion * hidden, hidden) for _ in range(blocks))
        self.last = nn.Linear(hidden, size)

    def forward(
        self, x: Float[Tensor, "... k"], time: Float[Tensor, "..."], obs: Float[Tensor, "B d"],
        label: int | Int[Tensor, "B"] = 0,
    ) -> Float[Tensor, "... k"]:  # fmt: skip
        lead = x.shape[:-1]
        reads = [x, obs.expand(*lead, obs.shape[-1]), time_features(time, self.time)]
        if self.labels is not None:
            reads.append(self.labels[label].expand(*lead, self.time))
        hidden = self.first(torch.cat(reads, -1))
        for norm, wide, back in zip(self.norms, self.wide, self.back, strict=True):
            hidden = hidden + back(mish(wide(norm(hidden))))
        return self.last(mish(hidden))

    def at(self, obs: Float[Tensor, "B d"], label: int | Int[Tensor, "B"] = 0) -> Predict:
        """The model of x and time alone."""
        return lambda x, time: self(x, time, obs, label)


class EnergyDenoiser(Denoiser):
    """A denoiser that is a slope: eps(x, t) = -sigma_t grad_x f(x, t), f one number, which where
    eps is the best guess is log p(x) of what is noised to t, up to a constant of t and the
    observation.

    Args:
        abar: of the K levels of noise; time is k / K, k = 1..K. The others are `Denoiser`'s.

    Aligning Diffusion Behaviors with Q-functions for Efficient Continuous Control (2024).
    """

    sigma: Tensor

    def __init__(
        self, size: int, obs_dim: int, abar: Float[Tensor, "K"], hidden: int = 256,
        blocks: int = 3, labels: int = 0, expansion: int = 4,
    ) -> None:  # fmt: skip
        super().__init__(size, obs_dim, hidden, blocks, labels, expansion)
        self.register_buffer("sigma", (1.0 - abar).sqrt())

    def energy(
        self, x: Float[Tensor, "... k"], time: Float[Tensor, "..."], obs: Float[Tensor, "B d"],
        label: int | Int[Tensor, "B"] = 0,
    ) -> Float[Tensor, "..."]:  # fmt: skip
        """f: the sum of the net's outputs."""
        return super().forward(x, time, obs, label).sum(-1)

    def forward(
        self, x: Float[Tensor, "... k"], time: Float[Tensor, "..."], obs: Float[Tensor, "B d"],
        label: int | Int[Tensor, "B"] = 0,
    ) -> Float[Tensor, "... k"]:  # fmt: skip
        slope = torch.func.grad(lambda y: self.energy(y, time, obs, label).sum())(x)
        level = (time * self.sigma.shape[0]).round().long() - 1
        return -self.sigma[level][..., None] * slope
