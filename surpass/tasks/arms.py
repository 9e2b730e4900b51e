"""What explorers act in: a population of contexts, and arms whose rewards move as they are pulled.

A world shows a `Scene` and pays for the actions; several independent copies of a moving world are
the rows of one scene, so that many runs cost little more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surpass.data.truth import Truth
from surpass.errors import InputError

__all__ = [
    "Population", "Pulls", "RecoveringArms", "RecoveringPlay", "RisingArms", "Scene", "World",
]  # fmt: skip


class Scene(NamedTuple):
    """What is on offer now: contexts [B, d], expected rewards [B, A], and what is available [B,
    A]."""

    context: Tensor
    mean: Tensor
    available: Tensor | None = None


@runtime_checkable
class World(Protocol):
    """Shows scenes and pays for actions."""

    def scene(self, n: int, rng: np.random.Generator) -> Scene:
        """The next n decisions."""
        ...

    def paid(
        self, scene: Scene, action: Int[Tensor, "B"], rng: np.random.Generator
    ) -> Float[Tensor, "B"]:
        """The rewards of the actions taken in a scene; what moves with them moves."""
        ...


@dataclass(frozen=True)
class Population:
    """Contexts drawn from a known population; expected rewards are probabilities of 1."""

    truth: Truth
    available: Bool[Tensor, "M A"] | None = None

    def scene(self, n: int, rng: np.random.Generator) -> Scene:
        """Contexts with replacement."""
        drawn = torch.from_numpy(rng.integers(len(self.truth.contexts), size=n))
        offered = None if self.available is None else self.available[drawn]
        return Scene(self.truth.contexts[drawn], self.truth.rewards[drawn], offered)

    def paid(self, scene: Scene, action: Tensor, rng: np.random.Generator) -> Tensor:
        """1 with the expected reward's probability, else 0."""
        chance = scene.mean.gather(1, action[:, None])[:, 0].numpy()
        return torch.from_numpy((rng.random(len(chance)) < chance).astype(np.float64))


class RisingArms:
    """Arms without contexts that improve as they are pulled, along a line, and then level off.

    Arm k pays mu_k(n) = min(plateau_k, start_k + (plateau_k - start_k) n / pulls_k) at its n-th
    pull (from 0), less `cost_k`, plus normal noise. Each row is an independent copy.

    Args:
        start, plateau, pulls: [R, K]. noise: its standard deviation. cost: [K] or one number.

    Raises:
        InputError: when the shapes differ.
    """

    def __init__(
        self,
        start: Float[np.ndarray, "R K"],
        plateau: Float[np.ndarray, "R K"],
        pulls: Float[np.ndarray, "R K"],
        noise: float = 0.1,
        cost: Float[np.ndarray, "K"] | float = 0.0,
    ) -> None:
        if not start.shape == plateau.shape == pulls.shape or start.ndim != 2:
            raise InputError("start, plateau and pulls are tables of copies and arms, of one shape")
        self.start, self.plateau, self.pulls, self.noise, self.cost = (
            start, plateau, pulls, noise, cost,
        )  # fmt: skip
        self.count = np.zeros(start.shape)

    def mean(self, count: np.ndarray) -> np.ndarray:
        """Expected rewards after so many pulls of each arm."""
        share = np.minimum(count / self.pulls, 1.0)
        return self.start + (self.plateau - self.start) * share - self.cost

    def scene(self, n: int, rng: np.random.Generator) -> Scene:
        """All copies; n must be their number."""
        if n != len(self.start):
            raise InputError(f"there are {len(self.start)} copies, {n} decisions were asked for")
        return Scene(torch.zeros(n, 1), torch.from_numpy(self.mean(self.count)))

    def paid(self, scene: Scene, action: Tensor, rng: np.random.Generator) -> Tensor:
        """The means plus noise; the arms that were pulled rise."""
        rows, arms = np.arange(len(action)), action.numpy()
        self.count[rows, arms] += 1
        earned = scene.mean.numpy()[rows, arms]
        return torch.from_numpy(earned + self.noise * rng.normal(size=len(arms)))

    def best_single(self, rounds: int) -> Float[np.ndarray, "R"]:
        """The largest sum of expected rewards that pulling one arm only would earn."""
        n = np.arange(rounds)[:, None, None]
        return self.mean(n).sum(0).max(1)


class RecoveringArms:
    """Arms that pay less right after a pull and recover while they rest; `paid` is Bernoulli.

    Args:
        rewards: R_i(d) [N, D], the mean reward after d rounds of rest, at most 1, not falling in d.

    Raises:
        InputError: when a curve leaves [0, 1] or falls.
    """

    def __init__(self, rewards: Float[np.ndarray, "N D"]) -> None:
        if rewards.min() < 0 or rewards.max() > 1 or (np.diff(rewards, axis=1) < -1e-12).any():
            raise InputError("recovery curves lie in [0, 1] and do not fall with rest")
        self.rewards = rewards
        self.rest = np.full(len(rewards), rewards.shape[1])

    def pull(self, arms: list[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One round: how long each pulled arm had rested (at most D), and what it paid."""
        longest = self.rewards.shape[1]
        rested = np.minimum(self.rest[arms], longest)
        reward = (rng.random(len(arms)) < self.rewards[arms, rested - 1]).astype(np.float64)
        self.rest += 1
        self.rest[arms] = 1
        return rested, reward


class Pulls(NamedTuple):
    """How often each arm was pulled after each rest [N, D], what that paid in all, and the rounds
    that will be played in all."""

    count: Float[np.ndarray, "N D"]
    total: Float[np.ndarray, "N D"]
    rounds: int


class RecoveringPlay:
    """Recovering arms pulled by plans, a phase of `rounds` rounds each: the playground of
    `surpass.training.replan.replan`. A plan says which arms are `pulled(t)` in round t of its
    phase.

    Args:
        arms: what is pulled. rounds: of a phase. total: of all phases.
    """

    def __init__(self, arms: RecoveringArms, rounds: int, total: int) -> None:
        self.arms, self.rounds, self.total = arms, rounds, total
        self.count, self.paid = np.zeros(arms.rewards.shape), np.zeros(arms.rewards.shape)
        self.t = 0

    def records(self) -> Any:
        """How often each arm was pulled after each rest, what that paid, and the rounds in all."""
        return Pulls(self.count.copy(), self.paid.copy(), self.total)

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """One phase; the mean of the expected rewards a round."""
        earned = 0.0
        for t in range(self.t, self.t + self.rounds):
            pulled = plan.pulled(t)
            if not pulled:
                self.arms.rest += 1
                continue
            rested, reward = self.arms.pull(pulled, rng)
            np.add.at(self.count, (pulled, rested - 1), 1)
            np.add.at(self.paid, (pulled, rested - 1), reward)
            earned += float(self.arms.rewards[pulled, rested - 1].sum())
        self.t += self.rounds  # an unchanged plan goes on without a seam
        return earned / self.rounds
