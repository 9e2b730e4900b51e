"""Environments whose every value is known, as vector environments."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surpass.tasks.protocol import Batched, Spaces, Step


@dataclass(frozen=True)
class Counter:
    """Counts its steps: obs = (step), reward = step + 1, truncated or terminated after `length`."""

    length: int = 3
    terminal: bool = False
    discrete: bool = False
    noise_dim: int = 0

    @property
    def spaces(self):
        if self.discrete:
            return Spaces(1, n_actions=2, horizon=self.length)
        return Spaces(1, action_dim=1, low=(-2.0,), high=(6.0,), horizon=self.length)

    def reset(self, n, generator=None):
        t = torch.zeros(n, dtype=torch.long)
        return {"t": t}, t[:, None].float()

    def step(self, state, action, noise=None):
        t = state["t"] + 1
        over = t >= self.length
        no = torch.zeros_like(over)
        ends = (over, no) if self.terminal else (no, over)
        return Step({"t": t}, t[:, None].float(), t.float(), *ends)


@dataclass(frozen=True)
class Regulator:
    """x' = x + u, held in [-1.5, 1.5], reward -10 (x^2 + u^2 / 2), u in [-1, 1], x from [-1, 1], 20
    steps: a regulator whose best control is known (it never reaches the bounds)."""

    noise_dim: int = 0

    spaces = Spaces(1, action_dim=1, low=(-1.0,), high=(1.0,), horizon=20)

    def reset(self, n, generator=None):
        x = 2 * torch.rand(n, generator=generator) - 1
        return {"x": x, "t": torch.zeros(n, dtype=torch.long)}, x[:, None]

    def step(self, state, action, noise=None):
        x, u = state["x"], action[:, 0].clamp(-1, 1)
        reward = -10 * (x.square() + 0.5 * u.square())
        x, t = (x + u).clamp(-1.5, 1.5), state["t"] + 1
        no = torch.zeros_like(t, dtype=torch.bool)
        return Step({"x": x, "t": t}, x[:, None], reward, no, t >= 20)


class TaskOf:
    """A simulator as a task."""

    def __init__(self, simulator):
        self.simulator, self.spaces = simulator, simulator.spaces

    def make(self, n, seed=0, **_):
        return Batched(self.simulator, n, seed)
