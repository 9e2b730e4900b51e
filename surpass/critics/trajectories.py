"""The net of a diffusion model over segments of episodes: residual convolutions along time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mish

from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.denoisers import time_features
from surpass.policies.diffusion import continuous_only

__all__ = ["TrajectoryNet", "trajectory_net"]


class TrajectoryNet(nn.Module):
    """From segments [B, L f] and ln(sigma) / 4 [B] to [B, L f].

    Kernels of 5 over time, doubling their reach with every block; each block is shifted by the
    noise
    level.
    """

    def __init__(self, length: int, entries: int, width: int, blocks: int, time: int = 16) -> None:
        super().__init__()
        self.length, self.entries, self.time = length, entries, time
        self.first = nn.Conv1d(entries, width, 1)
        self.place = nn.Parameter(0.02 * torch.randn(width, length))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(blocks))
        self.level = nn.ModuleList(nn.Linear(time, width) for _ in range(blocks))
        self.along = nn.ModuleList(
            nn.Conv1d(width, width, 5, padding=2 * 2**i, dilation=2**i) for i in range(blocks)
        )
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(blocks))
        self.last = nn.Conv1d(width, entries, 1)

    def forward(self, x: Float[Tensor, "B Lf"], level: Float[Tensor, "B"]) -> Float[Tensor, "B Lf"]:
        seen = time_features(level, self.time)
        hidden = self.first(x.unflatten(-1, (self.length, self.entries)).transpose(1, 2))
        hidden = hidden + self.place
        for norm, shift, along, mix in zip(
            self.norms, self.level, self.along, self.mix, strict=True
        ):
            inner = mish(norm(hidden) + shift(seen)[..., None])
            hidden = hidden + mix(mish(along(inner)))
        return self.last(mish(hidden)).transpose(1, 2).flatten(1)


@part
def trajectory_net(
    spaces: Spaces, /, length: int = 32, width: int = 128, blocks: int = 3
) -> nn.Module:
    """The net for segments of `length` steps.

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "a diffusion model of trajectories")
    return TrajectoryNet(length, spaces.obs_dim + spaces.action_dim + 2, width, blocks)
