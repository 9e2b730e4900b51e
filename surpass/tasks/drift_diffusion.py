"""Comparisons by a decision maker whose evidence drifts: choices, and the time they took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.response_times import log_exit_density

__all__ = ["Comparisons", "compare"]

GRID = 800


@dataclass(frozen=True)
class Comparisons:
    """Timed comparisons: what distinguishes the two options, [n, d], which was chosen (+1 or -1),
    [n], and after how many seconds, [n]."""

    features: Float[Tensor, "n d"]
    choice: Float[Tensor, "n"]
    seconds: Float[Tensor, "n"]

    def first(self, n: int) -> Comparisons:
        """The first n of them."""
        return Comparisons(self.features[:n], self.choice[:n], self.seconds[:n])


def compare(
    features: Float[Tensor, "n d"], margin: Float[Tensor, "n"], rng: np.random.Generator,
    *, boundary: float = 1.0, delay: float = 0.0,
) -> Comparisons:  # fmt: skip
    """One choice and time per margin v, from the exact law: the choice is +1 with probability
    1 / (1 + exp(-2 b v)), the time is independent of it, with density in proportion to
    exp(-v^2 t / 2) f(t / b^2), inverted on a logarithmic grid.

    Args:
        boundary: b. delay: seconds that are not spent deciding, added to all.
    """
    v, b = margin.to(torch.float64), boundary
    t = torch.logspace(-3, 1.3, GRID, dtype=torch.float64) * b**2
    # with log-spaced points the mass of a cell is in proportion to density times t
    log_mass = log_exit_density(t / b**2) + t.log() - v[:, None].square() * t / 2
    mass = (log_mass - log_mass.amax(1, keepdim=True)).exp()
    reached = (mass.cumsum(1) / mass.sum(1, keepdim=True)).clamp_max(1.0)
    u = torch.from_numpy(rng.random(len(v)))[:, None]
    place = torch.searchsorted(reached, u).clamp(1, GRID - 1)
    low, high = reached.gather(1, place - 1), reached.gather(1, place)
    share = ((u - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
    when = (t[place - 1].log() * (1 - share) + t[place].log() * share).exp()[:, 0]
    first = torch.from_numpy(rng.random(len(v))) < torch.sigmoid(2 * b * v)
    return Comparisons(features, torch.where(first, 1.0, -1.0).double(), when + delay)
