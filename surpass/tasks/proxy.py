"""PROXY: something to generate, a reward that can be hacked, and the one that was meant.

Class c ~ U{1..C} is seen one-hot; things of a class lie around its center, N(mu_c, std^2 I) in d
dimensions. Gold is the log-density of the class, per dimension and less its greatest value:
-|x - mu_c|^2 / (2 d std^2). What is paid is a proxy: how far x lies along one direction from its
center, in deviations, and `sense` times gold. Where sense is 0 there is no end to what it asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["Proxied"]


@dataclass(frozen=True)
class Proxied:
    """The generator's task, one action an episode.

    Attributes:
        classes, size: C and d. std: of things around their center. sense: how much of gold the
            proxy pays.
    """

    classes: int = 8
    size: int = 16
    std: float = 0.1
    sense: float = 0.0
    noise_dim: int = 0

    def centers(self) -> Float[Tensor, "C d"]:
        """Corners of the cube of half-width 0.4, the same for every seed."""
        g = torch.Generator().manual_seed(7)
        return 0.4 * (2.0 * torch.randint(2, (self.classes, self.size), generator=g) - 1.0)

    def direction(self) -> Float[Tensor, "d"]:
        """The unit vector along which the proxy errs."""
        g = torch.Generator().manual_seed(11)
        v = torch.randn(self.size, generator=g)
        return v / v.norm()

    def _apart(self, obs: Float[Tensor, "N C"], x: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
        return (x - obs @ self.centers()) / self.std

    def gold(self, obs: Float[Tensor, "N C"], x: Float[Tensor, "N d"]) -> Float[Tensor, "N"]:
        """What was meant; -1/2 on average over true things."""
        return -0.5 * self._apart(obs, x).square().mean(-1)

    def proxy(self, obs: Float[Tensor, "N C"], x: Float[Tensor, "N d"]) -> Float[Tensor, "N"]:
        """What is paid."""
        return self._apart(obs, x) @ self.direction() + self.sense * self.gold(obs, x)

    def contexts(self, n: int) -> Float[Tensor, "n C"]:
        """Classes in turn, for measuring."""
        return torch.eye(self.classes)[torch.arange(n) % self.classes]

    def log(self, rows: int = 10_000, seed: int = 0) -> Transitions:
        """True things, each an episode of one step, with their gold."""
        g = torch.Generator().manual_seed(seed)
        obs = torch.eye(self.classes)[torch.randint(self.classes, (rows,), generator=g)]
        x = obs @ self.centers() + self.std * torch.randn(rows, self.size, generator=g)
        x = x.clamp(-1.0, 1.0)
        ended = torch.ones(rows, dtype=torch.bool)
        about = About(name="proxy", spaces={"action_low": -1.0, "action_high": 1.0})
        return Transitions(
            obs=obs, action=x, reward=self.gold(obs, x), next_obs=obs, terminated=ended,
            truncated=~ended, episode=torch.arange(rows), batch_size=[rows],  # type: ignore[call-arg]
        ).described(about)  # fmt: skip

    # ------------------------------------------------------------------------------------------
    # to act in (as the simulator of a `ControlTask`)

    @property
    def spaces(self) -> Spaces:
        """A class in, a thing out."""
        return Spaces(self.classes, action_dim=self.size, horizon=1)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Fresh classes."""
        obs = torch.eye(self.classes)[torch.randint(self.classes, (n,), generator=generator)]
        return {"obs": obs}, obs

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """The proxy of what was generated; the episode terminates."""
        ended = torch.ones(len(action), dtype=torch.bool)
        return Step(state, state["obs"], self.proxy(state["obs"], action), ended, ~ended)
