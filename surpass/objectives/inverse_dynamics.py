"""What lies between two states: inferred actions, and a penalty whose states are shaken."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["contextual", "inferred"]


@part
def inferred(nets: Nets, rows: Rows, /, inverse: str = "inverse") -> Float[Tensor, "B"]:
    """-log I(a|s, s') of the logged action."""
    both = torch.cat([rows.obs, rows.next_obs], -1)
    return nets[inverse].imitation(both, rows.action)


@part
def contextual(
    nets: Nets, rows: Rows, /, inner: Any, sigma: float = 0.05, inverse: str = "inverse"
) -> Float[Tensor, "B"]:
    """A penalty such as `conservative`, at s + sigma eps, eps ~ N(0, I), and with an action of
    I(.|s + sigma eps, s') in place of the logged one: what would lead back to where the log went.

    Contextual Conservative Q-Learning for Offline Reinforcement Learning (2023).
    """
    obs = rows.obs + sigma * torch.randn_like(rows.obs)
    action, _ = nets[inverse].sample(torch.cat([obs, rows.next_obs], -1))
    return inner(nets, rows.filled(obs=obs, action=action.detach()))
