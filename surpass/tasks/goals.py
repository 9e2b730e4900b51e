"""GOALS: a point that must find an unseen goal on a half circle, paid only where it is near.

x in the plane from the origin, x <- x + 0.1 a, a in [-1, 1]^2, 20 steps; the goal lies at distance
1
at an angle in [0, pi]; reward 1 within 0.2 of it, else 0. The goal is the task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.tasks.protocol import Spaces, State, Step
from surpass.tasks.recording import joined

__all__ = ["SparseGoal", "goal_log"]


@dataclass(frozen=True)
class SparseGoal:
    """The environment of one goal.

    Attributes:
        angle: of the goal. near: how close is close enough. horizon: steps.
    """

    angle: float = 0.0
    near: float = 0.2
    horizon: int = 20

    @property
    def spaces(self) -> Spaces:
        """Two numbers in, two out."""
        return Spaces(2, 2, 0, (-1.0, -1.0), (1.0, 1.0), self.horizon)

    @property
    def noise_dim(self) -> int:
        """Nothing is random."""
        return 0

    @property
    def goal(self) -> Tensor:
        """Where it pays, [2]."""
        return torch.tensor([math.cos(self.angle), math.sin(self.angle)])

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """At the origin."""
        x = torch.zeros(n, 2)
        return {"x": x, "t": torch.zeros(n, dtype=torch.long)}, x

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step; the reward is that of the place reached."""
        x, t = state["x"] + 0.1 * action.clamp(-1.0, 1.0), state["t"] + 1
        reward = ((x - self.goal).norm(dim=-1) < self.near).to(x.dtype)
        never = torch.zeros_like(t, dtype=torch.bool)
        return Step({"x": x, "t": t}, x, reward, never, t >= self.horizon)


def goal_log(
    angles: Sequence[float], episodes: int = 20, noise: float = 0.3, seed: int = 0
) -> Transitions:
    """Episodes of each goal's own noisy controller; `task` is the place of the goal in `angles`."""
    g, logs = torch.Generator().manual_seed(seed), []
    for number, angle in enumerate(angles):
        env = SparseGoal(angle)
        state, obs = env.reset(episodes)
        columns: dict[str, list[Tensor]] = {}
        for _ in range(env.horizon):
            action = 5.0 * (env.goal - obs)
            action = action / action.norm(dim=-1, keepdim=True).clamp(min=1.0)
            action = action + noise * torch.randn(episodes, 2, generator=g)
            action = action.clamp(-1.0, 1.0)
            after = env.step(state, action)
            row = {"obs": obs, "action": action, "reward": after.reward, "next_obs": after.obs,
                   "terminated": after.terminated, "truncated": after.truncated}  # fmt: skip
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            state, obs = after.state, after.obs
        flat = {k: torch.stack(v, 1).flatten(0, 1) for k, v in columns.items()}
        rows = episodes * env.horizon
        logs.append(
            Transitions(
                **flat,
                episode=torch.arange(episodes).repeat_interleave(env.horizon),
                task=torch.full((rows,), number),
                batch_size=[rows],  # type: ignore[call-arg]
            )
        )
    about = About(name="goals", spaces={"action_low": -1.0, "action_high": 1.0})
    return joined(logs).described(about)
