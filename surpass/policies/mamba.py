"""Selective state spaces: a recurrence whose decay and input depend on what it reads, as one scan.

    h_l = exp(dt_l A) h_{l-1} + dt_l B_l x_l,   y_l = C_l . h_l + D x_l

Mamba: Linear-Time Sequence Modeling with Selective State Spaces (2023), in plain tensor operations.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus

__all__ = ["MultiGrained", "SelectiveMixer", "selective_scan"]


def selective_scan(
    x: Float[Tensor, "B L d"], dt: Float[Tensor, "B L d"], a: Float[Tensor, "d N"],
    b: Float[Tensor, "B L N"], c: Float[Tensor, "B L N"], skip: Float[Tensor, "d"],
) -> Float[Tensor, "B L d"]:  # fmt: skip
    """y of the recurrence, by doubling: log2(L) passes over all places at once."""
    decay = torch.exp(dt[..., None] * a)
    state = (dt * x)[..., None] * b[:, :, None]
    shift = 1
    while shift < x.shape[1]:
        ahead = state[:, shift:] + decay[:, shift:] * state[:, :-shift]
        state = torch.cat([state[:, :shift], ahead], 1)
        decay = torch.cat([decay[:, :shift], decay[:, shift:] * decay[:, :-shift]], 1)
        shift *= 2
    return (state * c[:, :, None]).sum(-1) + skip * x


class SelectiveMixer(nn.Module):
    """From [B, L, w] to [B, L, w], each place seeing itself and those before: a causal depthwise
    convolution, the scan over twice the width, and a gate."""

    def __init__(self, width: int, states: int = 16, kernel: int = 4) -> None:
        super().__init__()
        inner, rank = 2 * width, max(width // 16, 1)
        self.kernel, self.states, self.rank = kernel, states, rank
        self.into = nn.Linear(width, 2 * inner)
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * states)
        self.pace = nn.Linear(rank, inner)
        self.log_a = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width)
        nn.init.uniform_(self.pace.bias, -4.6, -2.2)  # softplus: dt about 0.01 to 0.1

    def forward(self, x: Float[Tensor, "B L w"]) -> Float[Tensor, "B L w"]:
        value, gate = self.into(x).chunk(2, -1)
        value = silu(self.conv(pad(value.transpose(1, 2), (self.kernel - 1, 0))).transpose(1, 2))
        rank, b, c = self.select(value).split([self.rank, self.states, self.states], -1)
        dt = softplus(self.pace(rank))
        y = selective_scan(value, dt, -self.log_a.exp(), b, c, self.skip)
        return self.out(y * silu(gate))


class MultiGrained(nn.Module):
    """Tokens R_1, s_1, a_1, R_2, ... at two grains: x + coarse(norm x) + LN(fine), where the fine
    branch reads one vector a step, made of (a_{t-1}, R_t, s_t) so that no action sees itself, and
    gives it to the step's three tokens.

    Decision Mamba: A Multi-Grained State Space Model with Self-Evolution Regularization for Offline
    RL (2024).
    """

    def __init__(self, width: int, states: int = 16) -> None:
        super().__init__()
        self.norm, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.coarse = SelectiveMixer(width, states)
        self.group = nn.Linear(3 * width, width)
        self.fine = SelectiveMixer(width, states)
        self.fuse = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B 3T w"]) -> Float[Tensor, "B 3T w"]:
        normal = self.norm(x)
        batch, length, width = x.shape
        shifted = pad(normal, (0, 0, 1, 0))[:, :-1]  # a_{t-1}, R_t, s_t
        step = self.group(shifted.reshape(batch, length // 3, 3 * width))
        fine = self.after(self.fuse(self.fine(step))).repeat_interleave(3, 1)
        return x + self.coarse(normal) + fine
