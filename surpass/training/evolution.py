"""Evolution strategies: the gradient of a smoothed score, from scores alone.

OpenES of "Evolution Strategies as a Scalable Alternative to Reinforcement Learning" (2017): pairs
theta +- sigma e, scores replaced by centered ranks, Adam on the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Adam, adam
from surpass.training.optimizers import Moments, adam_numbers, adam_update

__all__ = ["OpenES", "centered_ranks", "evolve"]


def centered_ranks(score: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """Ranks from -1/2 to 1/2; equal scores share the mean of their ranks, so that they count 0 in a
    pair."""
    lower = (score[None, :] < score[:, None]).sum(-1)
    same = (score[None, :] == score[:, None]).sum(-1)
    return (lower + 0.5 * (same - 1)) / (len(score) - 1) - 0.5


@dataclass
class OpenES:
    """Asks for a population, is told its scores, and moves `mean` upward.

    Args:
        mean: where to begin, [n]. population: even, in pairs. sigma: of the perturbations.
        optimizer: of the mean. seed: of the perturbations.

    Raises:
        InputError: when the population is odd, or smaller than 2.
    """

    mean: Float[Tensor, "n"]
    population: int = 32
    sigma: float = 0.05
    optimizer: Adam = field(default_factory=lambda: adam(0.02))
    seed: int = 0
    generation: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.population < 2 or self.population % 2:
            raise InputError(f"a population of {self.population} has no pairs: an even number")
        self.generator = torch.Generator().manual_seed(self.seed)
        zeros = {"mean": torch.zeros_like(self.mean)}
        self.moments = Moments(zeros, dict(zeros))
        self.noise = torch.zeros(0)

    def ask(self) -> Float[Tensor, "P n"]:
        """mean + sigma e, and then, in the same order, mean - sigma e."""
        half = torch.randn(self.population // 2, len(self.mean), generator=self.generator)
        self.noise = torch.cat([half, -half])
        return self.mean + self.sigma * self.noise

    def gradient(self, score: Float[Tensor, "P"]) -> Float[Tensor, "n"]:
        """The estimated slope of the ranked score: the mean of rank e / sigma."""
        return (centered_ranks(score) @ self.noise) / (len(score) * self.sigma)

    def tell(self, score: Float[Tensor, "P"]) -> None:
        """Move."""
        rate, step, correction = torch.tensor(
            adam_numbers(self.optimizer, self.generation, self.generation + 1)
        ).unbind()
        slope = {"mean": -self.gradient(score)}
        new, self.moments = adam_update(
            self.optimizer, {"mean": self.mean}, slope, self.moments, (rate, step, correction)
        )
        self.mean, self.generation = new["mean"], self.generation + 1


def evolve(
    strategy: OpenES,
    score: Callable[[Float[Tensor, "P n"], int], Float[Tensor, "P"]],
    generations: int,
    note: Callable[[int, dict[str, float]], Any] | None = None,
) -> Float[Tensor, "n"]:
    """The mean after so many generations; `score(population, generation)` should be as lucky for
    both of a pair, `population[i]` and `population[i + P/2]`."""
    for generation in range(generations):
        found = score(strategy.ask(), generation)
        strategy.tell(found)
        if note is not None:
            note(generation, {"mean": float(found.mean()), "best": float(found.max())})
    return strategy.mean
