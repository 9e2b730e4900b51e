"""Runs an explorer in batches: it acts, its propensities are logged, and it learns from its own
log, which `surpass improve` reads as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surpass.critics.rewards import Boosting, RewardModel
from surpass.data.records import About, Decisions
from surpass.data.truth import Truth
from surpass.errors import InputError
from surpass.forms import Explorer, Outlook
from surpass.tasks.arms import Population, Scene, World

__all__ = ["Explored", "Learning", "explore"]


@dataclass(frozen=True)
class Explored:
    """What an explorer did: the `log` with exact propensities (`time` is the batch), the true mean
    reward of what it played in each batch, and of the best actions in the same scenes.

    `won` [batches, size] is the expected reward of each action that was taken.
    """

    log: Decisions
    earned: list[float]
    possible: list[float]
    won: Float[np.ndarray, "T B"]

    @property
    def regret(self) -> float:
        """What better choices would have earned in all, per decision."""
        return float(np.mean(self.possible) - np.mean(self.earned))


@runtime_checkable
class Learning(Protocol):
    """A model at work: what it expects, and how it learns from a batch."""

    def outlook(self, context: Float[Tensor, "B d"]) -> Outlook | None:
        """Predicted rewards and their spread; None before there is anything to say."""
        ...

    def learn(self, batch: Any) -> None:
        """From the decisions of a batch, in their order: `context`, `action`, `reward`."""
        ...


@dataclass
class _Batch:
    context: Tensor
    action: Tensor
    reward: Tensor
    p: Tensor
    offered: Tensor | None


@dataclass
class _Refitted:
    """A reward model that is fitted anew to the last batches."""

    model: RewardModel
    memory: int | None
    refit: int
    actions: int
    fitted: Any = None
    kept: list[_Batch] = field(default_factory=list)
    batches: int = 0

    def outlook(self, context: Tensor) -> Outlook | None:
        return None if self.fitted is None else Outlook(self.fitted.predict(context))

    def learn(self, batch: _Batch) -> None:
        self.kept.append(batch)
        self.batches += 1
        if self.memory is not None:
            self.kept = self.kept[-int(self.memory) :]
        if self.fitted is None or self.batches % self.refit == 0:
            columns = ("context", "action", "reward")
            joined = [torch.cat([getattr(b, k) for b in self.kept]) for k in columns]
            self.fitted = self.model.fit(*joined, n_actions=self.actions)


def explore(
    explorer: Explorer,
    world: Truth | World,
    batches: int,
    size: int = 1,
    *,
    available: Bool[Tensor, "M A"] | None = None,
    seed: int = 0,
) -> Explored:
    """Batches of decisions in a known world; rewards arrive when a batch is over.

    The explorer's `model` (boosted trees when it names none) is either one that learns as it goes
    (`begin(rows, features, actions, seed)` gives its `Learning`), or a reward model that is fitted
    every `refit` batches to its memory: the last `memory` batches, all when None. Until it has
    anything to say, actions are uniform over what is available.

    Args:
        explorer: the form.
        world: a population, whose expected rewards are probabilities of 1, or any `World`.
        batches, size: how many batches, and how many decisions before rewards arrive.
        available: the actions on offer in each context of a population. seed: of all randomness.

    Raises:
        InputError: when the probabilities an explorer chooses do not sum to 1.
    """
    rng = np.random.default_rng(seed)
    place = Population(world, available) if isinstance(world, Truth) else world
    learning: Learning | None = None
    done: list[_Batch] = []
    earned: list[float] = []
    possible: list[float] = []
    won: list[np.ndarray] = []
    for t in range(batches):
        scene = place.scene(size, rng)
        if learning is None:
            learning = _begin(explorer, scene, seed)
        p = _chosen(explorer, learning.outlook(scene.context), scene, t)
        edges = p.numpy().cumsum(1)
        last = edges.shape[1] - 1
        drawn = np.minimum((rng.random((size, 1)) * edges[:, -1:] >= edges).sum(1), last)
        action = torch.from_numpy(drawn)
        batch = _Batch(
            scene.context, action, place.paid(scene, action, rng), p, scene.available
        )  # fmt: skip
        done.append(batch)
        mean = scene.mean.numpy()
        best = mean if scene.available is None else np.where(scene.available, mean, -np.inf)
        earned.append(float((p.numpy() * mean).sum(1).mean()))
        possible.append(float(best.max(1).mean()))
        won.append(mean[np.arange(size), drawn])
        learning.learn(batch)
    return Explored(_joined(done), earned, possible, np.stack(won))


def _begin(explorer: Explorer, scene: Scene, seed: int) -> Learning:
    rows, actions = scene.mean.shape
    model: Any = explorer.model or Boosting(trees=50, leaves=8)
    if hasattr(model, "begin"):
        return model.begin(rows, scene.context.shape[1], actions, seed)
    return _Refitted(model, explorer.memory, explorer.refit, actions)


def _chosen(explorer: Explorer, seen: Outlook | None, scene: Scene, t: int) -> Tensor:
    """The probabilities of a batch [B, A]."""
    if seen is None:
        base = torch.ones_like(scene.mean)
        base = base if scene.available is None else scene.available.to(base.dtype)
        return base / base.sum(1, keepdim=True)
    now = Outlook(seen.mean, seen.spread, scene.available, seen.count, t, seen.extras)
    p = explorer.choose(now).to(torch.float64)
    if float(p.min()) < -1e-9 or float((p.sum(1) - 1).abs().max()) > 1e-6:
        raise InputError(f"{explorer.choose!r} gave numbers that are no probabilities")
    return p


def _joined(done: list[_Batch]) -> Decisions:
    action, p = torch.cat([b.action for b in done]), torch.cat([b.p for b in done])
    size = len(done[0].action)
    offered = [b.offered for b in done if b.offered is not None]
    about = About(name="explored", actions=tuple(map(str, range(p.shape[1]))))
    return Decisions(
        context=torch.cat([b.context for b in done]),
        action=action,
        reward=torch.cat([b.reward for b in done]),
        propensity=p.gather(1, action[:, None])[:, 0],
        propensities=p,
        available=torch.cat(offered) if offered else None,
        time=torch.arange(len(done), dtype=torch.float64).repeat_interleave(size),
        batch_size=[len(action)],  # type: ignore[call-arg]
    ).described(about)
