"""Demonstrations as a reference policy: clone them, then learn with a penalty for leaving the clone
that grows with how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from surpass.forms import Planner
from surpass.objectives.demonstrations import soft_optimistic
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.linear_mdp import Counts

__all__ = ["demo_reg_rl"]


@part
def _with_rewards(seen: Counts, /, rewards: Any = None) -> Counts:
    """What was seen, with known rewards in place of those that were paid."""
    if rewards is None:
        return seen
    return seen._replace(paid=seen.n.sum(-1) * np.asarray(rewards))


@system("demo-reg-rl")
def demo_reg_rl(
    reference: Any = None, lam: float = 0.1, c: float = 0.02, delta: float = 0.1,
    episodes: int = 1000, rewards: Any = None,
) -> Planner:  # fmt: skip
    """Best-policy identification with a penalty lam KL(trajectories || clone's).

    Args:
        reference: the clone [H, S, A], as of `clone_of`; uniform by default (entropy).
        lam: as of `budgeted`. c, delta: of the bonus.
        rewards: [S, A] or [H, S, A] in place of those paid, as of `rewards_of_preferences`: then
            the penalty bounds what errors of the rewards can do.
    """
    return Planner(soft_optimistic(reference, lam, c, delta), _with_rewards(rewards), episodes)
