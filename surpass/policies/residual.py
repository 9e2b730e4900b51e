"""A small Gaussian correction that starts at zero, with a fixed spread."""

from __future__ import annotations

import torch
from torch import nn

from surpass.forms import Spaces
from surpass.parts import part
from surpass.policies.diffusion import continuous_only
from surpass.policies.stochastic import DiagonalGaussian

__all__ = ["correction"]


class Correction(DiagonalGaussian):
    """N(m(s), exp(log_std)^2 I), m = 0 everywhere at first; the spread is not learned."""

    log_std: torch.Tensor  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], log_std: float) -> None:
        super().__init__(obs_dim, act_dim, hidden, log_std)
        del self.log_std
        self.register_buffer("log_std", torch.full((act_dim,), log_std))
        last = self.net.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)


@part
def correction(
    spaces: Spaces, /, hidden: tuple[int, ...] = (256, 256), log_std: float = -1.0
) -> nn.Module:
    """The policy of a residual: zero at first, spread exp(log_std).

    Raises:
        InputError: when actions are discrete.
    """
    continuous_only(spaces, "a correction")
    return Correction(spaces.obs_dim, spaces.action_dim, tuple(hidden), log_std)
