"""Batches of a policy's own episodes beside a log of others, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from surpass.objectives.hybrid_values import Both
from surpass.tasks.draws import drawn
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular import TabularMDP

__all__ = ["HybridPlay"]


@dataclass
class HybridPlay:
    """Where plans with a `pi` [H, S, A] are carried out, `episodes` at a time, for
    `surpass.training.replan.replan`; keeps those of the last plan, and all of the `log`, whose
    counts may be zero."""

    mdp: TabularMDP
    log: Counts
    episodes: int = 100

    def __post_init__(self) -> None:
        assert self.mdp.horizon is not None
        nothing = np.zeros((self.mdp.horizon, self.mdp.n_states, self.mdp.n_actions))
        self.seen = Both(nothing, nothing, self.log)

    def records(self) -> Both:
        """What the last plan saw, and the log."""
        return self.seen

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """The mean return of so many episodes."""
        H, S, A = plan.pi.shape
        P = np.broadcast_to(self.mdp.P.numpy(), (H, S, A, S))
        r = np.broadcast_to(self.mdp.r.numpy(), (H, S, A))
        s = rng.choice(S, size=self.episodes, p=self.mdp.d0.numpy())
        met, rewards = [], np.zeros((H, self.episodes))
        for h in range(H):
            a = drawn(plan.pi[h][s], rng)
            met.append((s, a))
            rewards[h] = r[h][s, a]
            s = drawn(P[h][s, a], rng)
        ahead = rewards[::-1].cumsum(0)[::-1]
        n, togo = np.zeros((H, S, A)), np.zeros((H, S, A))
        for h, at in enumerate(met):
            np.add.at(n[h], at, 1)
            np.add.at(togo[h], at, ahead[h])
        self.seen = Both(n, togo, self.log, plan)
        return float(ahead[0].mean())
