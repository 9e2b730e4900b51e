"""Episodes in a tabular problem of finite horizon, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from surpass.objectives.confidence import Pieces
from surpass.tasks.draws import drawn
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular import TabularMDP

__all__ = ["TabularPlay", "add", "agreeing_policies", "count", "sparse_problem", "split"]


def add(*pieces: Counts) -> Counts:
    """Counts of several logs together."""
    return Counts(sum(p.n for p in pieces), sum(p.paid for p in pieces), pieces[-1].last)  # type: ignore[arg-type]


def count(
    mdp: TabularMDP, pi: Float[np.ndarray, "... S A"], episodes: int, rng: np.random.Generator,
    noise: float = 0.0,
) -> Counts:  # fmt: skip
    """What so many episodes of a policy saw at each step; rewards have normal `noise`."""
    assert mdp.horizon is not None
    H, S, A = mdp.horizon, mdp.n_states, mdp.n_actions
    n, paid = np.zeros((H, S, A, S)), np.zeros((H, S, A))
    P, r = mdp.P.numpy(), mdp.r.numpy()
    s = rng.choice(S, size=episodes, p=mdp.d0.numpy())
    for h in range(H):
        now = pi[h] if pi.ndim == 3 else pi
        here, reward = (x[h] if x.ndim == d + 1 else x for x, d in ((P, 3), (r, 2)))
        a = drawn(now[s], rng)
        s2 = drawn(here[s, a], rng)
        np.add.at(n[h], (s, a, s2), 1)
        np.add.at(paid[h], (s, a), reward[s, a] + noise * rng.normal(size=episodes) if noise
                  else reward[s, a])  # fmt: skip
        s = s2
    return Counts(n, paid, None)


@dataclass
class TabularPlay:
    """Where plans are carried out, for `surpass.training.replan.replan`: policies [H, S, A], or
    records that have one as `pi`, or `behavior(rng)` where they explore by another. The first
    `before` steps follow `reference`. A `log` is what was seen before the first episode."""

    mdp: TabularMDP
    reference: np.ndarray | None = None
    before: int = 0
    log: Counts | None = None

    def __post_init__(self) -> None:
        self.seen = count(self.mdp, self.mdp.uniform().numpy(), 0, np.random.default_rng(0))
        if self.log is not None:
            self.seen = add(self.log, self.seen)

    def records(self) -> Counts:
        """What was seen so far."""
        return self.seen

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """One episode; its return."""
        explored = hasattr(plan, "behavior")
        pi = plan.behavior(rng) if explored else np.array(getattr(plan, "pi", plan))
        if self.before:
            assert self.reference is not None
            pi[: self.before] = np.broadcast_to(self.reference, pi.shape)[: self.before]
        fresh = count(self.mdp, pi, 1, rng)
        self.seen.n[...] += fresh.n
        self.seen.paid[...] += fresh.paid
        self.seen = self.seen._replace(last=plan)
        return float(fresh.paid.sum())


def split(mdp: TabularMDP, pi: np.ndarray, episodes: int, rng: np.random.Generator) -> Pieces:
    """Episodes of a policy in independent pieces: a third each for the reference value, its
    expectation, and all steps."""
    H, third = mdp.horizon or 1, episodes // 3
    logs = [count(mdp, pi, n, rng) for n in (third, third, *[max(third // H, 1)] * H)]
    return Pieces(logs[0], logs[1], tuple(logs[2:]))


def sparse_problem(
    seed: int, states: int = 15, actions: int = 6, horizon: int = 10, paying: int = 2
) -> TabularMDP:
    """Random next states of few branches; only `paying` states pay, and only in the last half."""
    rng = np.random.default_rng(seed)
    P = np.zeros((states, actions, states))
    for s in range(states):
        for a in range(actions):
            P[s, a, rng.choice(states, 3, replace=False)] = rng.dirichlet(np.full(3, 0.5))
    r = np.zeros((horizon, states, actions))
    r[horizon // 2 :, rng.choice(states, paying, replace=False)] = 1.0
    d0 = np.zeros(states)
    d0[0] = 1.0
    return TabularMDP(
        torch.from_numpy(P), torch.from_numpy(r), torch.from_numpy(d0), horizon=horizon
    )


def agreeing_policies(
    seed: int, n: int = 20, states: int = 12, actions: int = 4, horizon: int = 5,
    apart: bool = False,
) -> tuple[TabularMDP, Float[np.ndarray, "n H S A"]]:  # fmt: skip
    """A problem, and policies that agree everywhere but in its last state: what they do before
    leads there with probability 0.1 at the third step, other actions never, and rewards there go up
    to 3; or, `apart`, policies that differ in every state."""
    rng = np.random.default_rng(seed)
    P = np.zeros((horizon, states, actions, states))
    P[..., :-1] = rng.dirichlet(np.full(states - 1, 0.5), size=(horizon, states, actions))
    agreed = rng.integers(actions, size=(horizon, states))
    leads = (1, np.arange(states), agreed[1])
    P[leads] *= 0.9
    P[(*leads, -1)] = 0.1
    r = rng.random((horizon, states, actions))
    r[:, -1] = 3 * rng.random((horizon, actions))
    d0 = np.zeros(states)
    d0[0] = 1.0
    mdp = TabularMDP(
        torch.from_numpy(P), torch.from_numpy(r), torch.from_numpy(d0), horizon=horizon
    )
    pi = np.repeat(np.eye(actions)[agreed][None], n, 0)
    where = slice(None) if apart else slice(states - 1, None)
    pi[:, :, where] = rng.dirichlet(np.ones(actions), size=pi[:, :, where].shape[:3])
    return mdp, pi
