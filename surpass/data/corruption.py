"""Damage done to a log on purpose, to see what a method makes of it.

Towards Robust Offline Reinforcement Learning under Diverse Data Corruption (RIQL, 2023).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError

__all__ = ["Kind", "corrupted"]

Kind = Literal["observation", "action", "reward", "dynamics"]


def corrupted(
    log: Transitions, kind: Kind, rate: float = 0.3, scale: float = 1.0, seed: int = 0
) -> Transitions:
    """A copy of the log in which a share of the rows is damaged at random, each entry on its own.

    observation: s + U(-scale, scale) std(s). action: a + U(-scale, scale) std(a), within the bounds
    that are stated. reward: U(-30 scale, 30 scale) in its place. dynamics: s' + U(-scale, scale)
    std(s'). The next observation of a row and the observation of the row after are not linked
    again.

    Args:
        rate: the share of rows, the same rows for every kind and a seed.

    Raises:
        InputError: for another kind, a rate outside [0, 1], or discrete actions to be shifted.
    """
    if not 0.0 <= rate <= 1.0:
        raise InputError(f"the rate of corruption lies in [0, 1], not {rate}")
    generator = torch.Generator().manual_seed(seed)
    hit = torch.rand(len(log), generator=generator) < rate

    def drawn(like: Tensor) -> Tensor:
        return (2.0 * torch.rand(like.shape, generator=generator) - 1.0) * scale

    def shifted(column: Tensor) -> Tensor:
        moved = column + drawn(column) * column.std(0)
        return torch.where(hit[:, None], moved, column)

    out = log.clone(recurse=False)  # type: ignore[call-arg]
    if kind == "observation":
        out.obs = shifted(log.obs)
    elif kind == "dynamics":
        out.next_obs = shifted(log.next_obs)
    elif kind == "reward":
        out.reward = torch.where(hit, 30.0 * drawn(log.reward), log.reward)
    elif kind == "action":
        if not log.action.is_floating_point():
            raise InputError("actions are discrete here; there is nothing to shift them by")
        low, high = (log.about.spaces.get(f"action_{end}") for end in ("low", "high"))
        moved = shifted(log.action)
        if low is not None and high is not None:
            moved = torch.minimum(torch.maximum(moved, torch.as_tensor(low)), torch.as_tensor(high))
        out.action = moved
    else:
        raise InputError(f"no corruption {kind!r}; there are observation, action, reward, dynamics")
    return out
