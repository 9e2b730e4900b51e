"""Runs an explorer in batches: it acts, its propensities are logged, and it learns from its own
log, which `surpass improve` reads as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surpass.critics.rewards import Boosting
from surpass.data.records import About, Decisions
from surpass.data.truth import Truth
from surpass.errors import InputError
from surpass.forms import Explorer, Outlook

__all__ = ["Explored", "explore"]


@dataclass(frozen=True)
class Explored:
    """What an explorer did: the `log` with exact propensities (`time` is the batch), the true mean
    reward of what it played in each batch, and of the best actions in the same contexts."""

    log: Decisions
    earned: list[float]
    possible: list[float]

    @property
    def regret(self) -> float:
        """What better choices would have earned in all, per decision."""
        return float(np.mean(self.possible) - np.mean(self.earned))


def explore(
    explorer: Explorer,
    world: Truth,
    batches: int,
    size: int,
    *,
    available: Bool[Tensor, "M A"] | None = None,
    seed: int = 0,
) -> Explored:
    """Batches of decisions in a known population; rewards arrive when a batch is over.

    The first batch is uniform over what is available. Then the explorer's `model` (boosted trees
    when it names none) is fitted to its memory every `refit` batches: `memory` batches, all when
    None.

    Args:
        explorer: the form. world: the population; its expected rewards are probabilities of 1.
        batches, size: how many decisions, and how many before rewards arrive.
        available: the actions on offer in each context of the population. seed: of all randomness.

    Raises:
        InputError: when the probabilities an explorer chooses do not sum to 1.
    """
    rng = np.random.default_rng(seed)
    model = explorer.model or Boosting(trees=50, leaves=8)
    actions, fitted = world.rewards.shape[1], None
    parts: list[Decisions] = []
    earned: list[float] = []
    possible: list[float] = []
    for t in range(batches):
        drawn = torch.from_numpy(rng.integers(len(world.contexts), size=size))
        x = world.contexts[drawn]
        offered = None if available is None else available[drawn]
        mean = torch.zeros(size, actions, dtype=torch.float64)
        seen = Outlook(mean if fitted is None else fitted.predict(x), available=offered, round=t)
        if fitted is None:
            base = torch.ones_like(mean) if offered is None else offered.to(mean.dtype)
            p = base / base.sum(1, keepdim=True)
        else:
            p = explorer.choose(seen).to(torch.float64)
        if bool((p < -1e-9).any()) or bool(((p.sum(1) - 1).abs() > 1e-6).any()):
            raise InputError(f"{explorer.choose!r} gave numbers that are no probabilities")
        edges = p.numpy().cumsum(1)
        action = torch.from_numpy(
            np.minimum((rng.random((size, 1)) * edges[:, -1:] >= edges).sum(1), actions - 1)
        )
        paid = world.rewards[drawn]
        chance = paid.gather(1, action[:, None])[:, 0]
        reward = torch.from_numpy((rng.random(size) < chance.numpy()).astype(np.float64))
        parts.append(_logged(x, action, reward, p, offered, t))
        earned.append(float((p * paid).sum(1).mean()))
        best = paid if offered is None else paid.masked_fill(~offered, -torch.inf)
        possible.append(float(best.max(1).values.mean()))
        if fitted is None or (t + 1) % explorer.refit == 0:
            kept = parts if explorer.memory is None else parts[-int(explorer.memory) :]
            memory = {k: torch.cat([getattr(b, k) for b in kept]) for k in _LEARNED}
            fitted = model.fit(*(memory[k] for k in _LEARNED), n_actions=actions)
    joined: Any = torch.cat(parts)  # type: ignore[arg-type]
    about = About(name="explored", actions=tuple(map(str, range(actions))))
    return Explored(joined.described(about), earned, possible)


_LEARNED = ("context", "action", "reward")


def _logged(
    x: Float[Tensor, "n d"], action: Tensor, reward: Tensor, p: Tensor, offered: Tensor | None,
    batch: int,
) -> Decisions:  # fmt: skip
    return Decisions(
        context=x, action=action, reward=reward, propensity=p.gather(1, action[:, None])[:, 0],
        propensities=p, available=offered,
        time=torch.full((len(x),), float(batch), dtype=torch.float64),
        batch_size=[len(x)],  # type: ignore[call-arg]
    )  # fmt: skip
