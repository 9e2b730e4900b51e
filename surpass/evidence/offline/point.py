"""What evidence on POINT shares: training on small nets, scores, and the true worth of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import Transitions
from surpass.evaluation.rollouts import roll_out
from surpass.tasks.catalog import normalized
from surpass.tasks.point import PointMass
from surpass.training.run import Trained, train

__all__ = ["HIDDEN", "discounted", "learned", "score"]

HIDDEN = (64, 64)


def learned(form: Any, log: Transitions, steps: int, seed: int) -> Trained:
    """A recipe, trained on a log."""
    return train(form, log, steps=steps, seed=seed, log_every=steps)


def score(policy: Any, task: str = "point", episodes: int = 256) -> float:
    """The mean return, 0 random and 100 the expert, from the same starts for all policies."""
    played = roll_out(policy, task, episodes, seed=20_000, copies=episodes)
    return float(normalized(task, played.returns.mean()))


@torch.no_grad()
def discounted(
    act: Callable[[Tensor], Tensor], obs: Float[Tensor, "N 4"], gamma: float, steps: int = 500
) -> Float[Tensor, "N"]:
    """What a policy of POINT earns from given states, discounted, over so many steps."""
    world = PointMass(horizon=steps + 1)
    state = {"x": obs, "t": torch.zeros(len(obs), dtype=torch.long)}
    total, factor = torch.zeros(len(obs)), 1.0
    for _ in range(steps):
        after = world.step(state, act(obs))
        total += factor * after.reward
        state, obs, factor = after.state, after.obs, factor * gamma
    return total
