"""A linear system with quadratic costs that never ends, whose best average reward is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor

from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["LinearQuadratic"]


@dataclass(frozen=True)
class LinearQuadratic:
    """x' = decay x + a + sigma eps with reward -(x^2 + weight a^2), one number each; actions lie in
    [-most, most], which the optimum hardly ever meets.

    Attributes:
        decay, weight, sigma: as above. most: of actions. horizon: steps until an episode is cut.
    """

    decay: float = 0.9
    weight: float = 1.0
    sigma: float = 0.3
    most: float = 2.0
    horizon: int = 1_000
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=1, init=False)

    @property
    def spaces(self) -> Spaces:
        """One number in, one out."""
        return Spaces(1, action_dim=1, low=(-self.most,), high=(self.most,), horizon=self.horizon)

    @property
    def gain(self) -> float:
        """k of the best policy a = -k x, from the algebraic Riccati equation."""
        p = self._cost()
        return p * self.decay / (self.weight + p)

    @property
    def best(self) -> float:
        """The largest average reward, -p sigma^2."""
        return -self._cost() * self.sigma**2

    def _cost(self) -> float:
        one = np.eye(1)
        return float(solve_discrete_are(self.decay * one, one, one, self.weight * one)[0, 0])

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Near the origin."""
        device = generator.device if generator is not None else None
        x = self.sigma * torch.randn(n, 1, generator=generator, dtype=self.dtype, device=device)
        return {"x": x, "t": torch.zeros(n, dtype=torch.long, device=device)}, x

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One transition; the reward is that of the state before it."""
        assert noise is not None, "this system needs noise"
        a, x = action.clamp(-self.most, self.most), state["x"]
        eps = torch.special.ndtri(noise.to(self.dtype).clamp(1e-6, 1 - 1e-6))
        after = self.decay * x + a + self.sigma * eps
        reward = -(x.square() + self.weight * a.square())[..., 0]
        t = state["t"] + 1
        never = torch.zeros_like(t, dtype=torch.bool)
        return Step({"x": after, "t": t}, after, reward, never, t >= self.horizon)
