"""Exploring with action values: the best action, now and then any other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.forms import Policy
from surpass.parts import Nets, part
from surpass.policies.acting import NetPolicy

__all__ = ["epsilon_greedy"]


@part
def epsilon_greedy(nets: Nets, roles: Any, /, epsilon: float = 0.1, q: str = "q") -> Policy:
    """The best action with probability 1 - epsilon, else one drawn evenly from all; with its
    log-probability."""

    def choose(obs: Tensor) -> tuple[Tensor, Tensor]:
        values = nets[q].all(obs).mean(0)
        best, count = values.argmax(-1), values.shape[-1]
        any_one = torch.randint(count, best.shape, device=best.device)
        action = torch.where(torch.rand(best.shape, device=best.device) < epsilon, any_one, best)
        p = epsilon / count + (1.0 - epsilon) * (action == best).float()
        return action, p.log()

    return NetPolicy(choose)
