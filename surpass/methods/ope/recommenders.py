"""Recommenders that learn while they serve, and log what `improve` reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from surpass.critics.recommender import Recommender
from surpass.forms import Explorer
from surpass.policies.exploring import boltzmann
from surpass.registry import system

__all__ = ["grubhub_online"]


@system("grubhub-online")
def grubhub_online(
    users: int = 2000, items: int = 200, lr: float = 0.02, batch: int = 100, passes: int = 1,
    memory: int | None = None, temperature: float = 0.5, margin: float = 0.05,
    past: tuple[Tensor, Tensor, Tensor] | None = None, **how: Any,
) -> Explorer:  # fmt: skip
    """Warm start, then one pass over each window in the order of time, with all state kept; a
    candidate is served once held-out rows of its own window do not say that it loses.

    Args:
        users, items: how many numbers of each there may be (new items take new numbers).
        lr, batch, passes: of Adam. memory: None for incremental learning; a number of windows for
            training anew on those; 0 for none.
        temperature: of the softmax that is served. margin: what the gate lets a candidate lose.
        past: contexts, actions and rewards to begin with. how: further fields of `Recommender`.
    """
    model = Recommender(
        users, items, lr=lr, batch=batch, passes=passes, memory=memory, temperature=temperature,
        margin=margin, past=past, **how,
    )  # fmt: skip
    return Explorer(boltzmann(), model)
