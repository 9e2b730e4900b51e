"""Layered problems whose losses an adversary changes with every episode."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Adversary", "AdversaryPlay", "Seen", "switching", "visits"]


@dataclass(frozen=True)
class Adversary:
    """Moves P [H, S, A, S] from state 0, features phi [H, S, A, d] in which the losses-to-go of
    every policy are linear, and losses [B, H, S, A] in [0, 1]: block by block of `every` episodes,
    again and again."""

    P: Float[np.ndarray, "H S A S"]
    phi: Float[np.ndarray, "H S A d"]
    losses: Float[np.ndarray, "B H S A"]
    every: int = 500

    def loss(self, episode: int) -> Float[np.ndarray, "H S A"]:
        """The losses of an episode."""
        return self.losses[episode // self.every % len(self.losses)]

    def worth(self, pi: Float[np.ndarray, "H S A"], loss: Float[np.ndarray, "H S A"]) -> float:
        """The expected loss of an episode, exactly."""
        v = np.zeros(pi.shape[1])
        for h in reversed(range(len(pi))):
            v = (pi[h] * (loss[h] + self.P[h] @ v)).sum(-1)
        return float(v[0])

    def best(self, episodes: int) -> float:
        """The loss per episode of the best fixed policy for so many episodes."""
        mean = np.mean([self.loss(k) for k in range(episodes)], axis=0)
        v = np.zeros(mean.shape[1])
        for h in reversed(range(len(mean))):
            v = (mean[h] + self.P[h] @ v).min(-1)
        return float(v[0])


def visits(
    P: Float[np.ndarray, "H S A S"], pi: Float[np.ndarray, "H S A"]
) -> Float[np.ndarray, "H S A"]:
    """How often each (s, a) is met at each step, from state 0."""
    d, out = np.eye(pi.shape[1])[0], np.zeros_like(pi)
    for h in range(len(pi)):
        out[h] = d[:, None] * pi[h]
        d = np.einsum("sa,sat->t", out[h], P[h])
    return out


class Seen(NamedTuple):
    """One episode: states and actions [H], losses-to-go [H], and the plan that was followed (None
    before the first)."""

    state: np.ndarray
    action: np.ndarray
    togo: np.ndarray
    last: Any


@dataclass
class AdversaryPlay:
    """Where plans with `pi` [H, S, A] are carried out, for `surpass.training.replan.replan`; keeps
    the last episode and the exact expected loss of every one."""

    problem: Adversary
    expected: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        none = np.zeros(0, dtype=int)
        self.last = Seen(none, none, np.zeros(0), None)

    def records(self) -> Seen:
        """What the last episode saw."""
        return self.last

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """One episode; its loss, negated."""
        loss, pi, P = self.problem.loss(len(self.expected)), plan.pi, self.problem.P
        self.expected.append(self.problem.worth(pi, loss))
        s, states, actions, paid = 0, [], [], []
        for h, u in enumerate(rng.random((len(pi), 2))):
            a = min(int(np.searchsorted(pi[h, s].cumsum(), u[0])), pi.shape[-1] - 1)
            states.append(s)
            actions.append(a)
            paid.append(loss[h, s, a])
            s = min(int(np.searchsorted(P[h, s, a].cumsum(), u[1])), P.shape[-1] - 1)
        togo = np.array(paid)[::-1].cumsum()[::-1]
        self.last = Seen(np.array(states), np.array(actions), togo, plan)
        return -float(togo[0])

    def regret(self) -> float:
        """Of all episodes so far, to the best fixed policy in hindsight."""
        n = len(self.expected)
        return float(np.sum(self.expected)) - n * self.problem.best(n)


def switching(
    seed: int, horizon: int = 3, states: int = 4, actions: int = 4, dims: int | None = None,
    blocks: int = 2, every: int = 500,
) -> Adversary:  # fmt: skip
    """Random moves and as many random tables of losses as blocks; features are one-hot. With
    `dims`, one step and one state, losses linear in random features of that many dimensions."""
    rng = np.random.default_rng(seed)
    if dims is not None:
        phi = rng.normal(size=(1, 1, actions, dims))
        phi /= np.linalg.norm(phi, axis=-1, keepdims=True)
        theta = rng.normal(size=(blocks, dims))
        theta /= np.abs(theta @ phi[0, 0].T).max(-1, keepdims=True)
        losses = 0.5 + 0.5 * (theta @ phi[0, 0].T)[:, None, None]
        phi = np.concatenate([phi, np.full((1, 1, actions, 1), 1.0)], -1) / np.sqrt(2)
        return Adversary(np.ones((1, 1, actions, 1)), phi, losses, every)
    P = rng.dirichlet(np.full(states, 0.5), size=(horizon, states, actions))
    phi = np.eye(states * actions).reshape(states, actions, -1)
    losses = rng.random((blocks, horizon, states, actions))
    return Adversary(P, np.broadcast_to(phi, (horizon, *phi.shape)), losses, every)
