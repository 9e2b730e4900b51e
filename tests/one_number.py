"""A task with a known best action, for what learns by acting."""

from __future__ import annotations

import torch

from surpass.forms import Spaces
from surpass.tasks.catalog import ControlTask
from surpass.tasks.protocol import Step

__all__ = ["AIM", "Aim"]


class Aim:
    """One decision: reward -(a - 0.6)^2."""

    spaces = Spaces(1, 1, 0, (-1.0,), (1.0,), horizon=1)
    noise_dim = 0

    def reset(self, n, generator=None):
        return {"x": torch.zeros(n, 1)}, torch.zeros(n, 1)

    def step(self, state, action, noise=None):
        ended = torch.ones(len(action), dtype=torch.bool)
        return Step(state, state["x"], -(action[:, 0] - 0.6).square(), ended, ~ended)


AIM = ControlTask("aim", "one number to find", Aim())
