"""RING: a bandit whose logged actions lie in a few narrow modes on a circle, one in 2 dimensions.

Context s ~ U[-1, 1]; a mode is drawn uniformly, the action is its center plus N(0, std^2); reward
cos(angle of the action's mode - pi s) + N(0, noise^2). Means and Gaussians over all modes fall into
the empty middle, which is what the test is about: reward and the share of actions near a mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["Ring"]


@dataclass(frozen=True)
class Ring:
    """The bandit.

    Attributes:
        modes: how many, evenly spaced. radius: of the circle. std: of a mode, per dimension.
        noise: standard deviation of the reward.
    """

    modes: int = 8
    radius: float = 0.8
    std: float = 0.05
    noise: float = 0.1

    def centers(self) -> Float[Tensor, "m 2"]:
        """Where the modes are."""
        angle = 2 * math.pi * torch.arange(self.modes) / self.modes
        return self.radius * torch.stack([angle.cos(), angle.sin()], -1)

    def worth(
        self, context: Float[Tensor, "N 1"], action: Float[Tensor, "N 2"]
    ) -> Float[Tensor, "N"]:
        """The expected reward, cos of the angle between the action and pi s, times how much of the
        radius the action reaches (at most 1), so that the empty middle pays nothing."""
        length = action.norm(dim=-1).clamp(min=1e-6)
        goal = math.pi * context[:, 0]
        toward = action[:, 0] * goal.cos() + action[:, 1] * goal.sin()
        return toward / torch.maximum(length, torch.tensor(self.radius))

    def supported(self, action: Float[Tensor, "N 2"]) -> Float[Tensor, "N"]:
        """1 where the action lies within 3 standard deviations of a mode, else 0."""
        distance = torch.cdist(action, self.centers()).amin(-1)
        return (distance < 3 * self.std).float()

    def log(self, rows: int = 10_000, seed: int = 0) -> Transitions:
        """Decisions of the behavior policy, each an episode of one step."""
        g = torch.Generator().manual_seed(seed)
        context = 2 * torch.rand(rows, 1, generator=g) - 1
        mode = torch.randint(self.modes, (rows,), generator=g)
        action = self.centers()[mode] + self.std * torch.randn(rows, 2, generator=g)
        action = action.clamp(-1.0, 1.0)
        reward = self.worth(context, action) + self.noise * torch.randn(rows, generator=g)
        about = About(name="ring", spaces={"action_low": -1.0, "action_high": 1.0})
        return Transitions(
            obs=context,
            action=action,
            reward=reward,
            next_obs=context,
            terminated=torch.ones(rows, dtype=torch.bool),
            truncated=torch.zeros(rows, dtype=torch.bool),
            episode=torch.arange(rows),
            batch_size=[rows],  # type: ignore[call-arg]
        ).described(about)

    def contexts(self, n: int = 1_000) -> Float[Tensor, "n 1"]:
        """Evenly spaced contexts, for measuring."""
        return ((torch.arange(n) + 0.5) / n * 2 - 1)[:, None]

    # ------------------------------------------------------------------------------------------
    # to act in (as the simulator of a `ControlTask`): episodes of one step

    @property
    def spaces(self) -> Spaces:
        """One number in, two out."""
        return Spaces(1, action_dim=2, low=(-1.0, -1.0), high=(1.0, 1.0), horizon=1)

    @property
    def noise_dim(self) -> int:
        """One uniform number a step, for the reward."""
        return 1

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Fresh contexts."""
        context = 2 * torch.rand(n, 1, generator=generator) - 1
        return {"context": context}, context

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """The reward of an action; the episode terminates."""
        assert noise is not None, "rewards need noise"
        context = state["context"]
        shock = torch.special.ndtri(noise[:, 0].clamp(1e-6, 1 - 1e-6))
        reward = self.worth(context, action) + self.noise * shock
        ended = torch.ones(len(action), dtype=torch.bool)
        return Step(state, context, reward, ended, ~ended)
