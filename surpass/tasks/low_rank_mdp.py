"""Problems whose next states are mixtures of a few densities, and logs of them by level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from surpass.tasks.draws import drawn
from surpass.tasks.tabular import TabularMDP

__all__ = ["Level", "LowRankMDP", "locked_problem", "low_rank_problem"]


class Level(NamedTuple):
    """Steps of one level: state, action, next state [n] each, and the behavior policy [X, A]."""

    x: Int[np.ndarray, "n"]
    a: Int[np.ndarray, "n"]
    x2: Int[np.ndarray, "n"]
    behavior: Float[np.ndarray, "X A"]


@dataclass(frozen=True)
class LowRankMDP:
    """P_h(x'|x, a) = sum_i phi_h(x, a)_i mu_hi(x'), phi and the rows of mu on simplexes.

    Attributes:
        phi: [H, X, A, d]. mu: [H, d, X], which learners know. r: rewards [H, X, A]. d0: [X].
    """

    phi: Float[np.ndarray, "H X A d"]
    mu: Float[np.ndarray, "H d X"]
    r: Float[np.ndarray, "H X A"]
    d0: Float[np.ndarray, "X"]

    @property
    def horizon(self) -> int:
        """H."""
        return len(self.phi)

    @cached_property
    def P(self) -> Float[np.ndarray, "H X A X"]:
        """Transition probabilities."""
        return np.einsum("hxad,hdy->hxay", self.phi, self.mu)

    def tabular(self) -> TabularMDP:
        """As tables with exact answers."""
        return TabularMDP(*map(torch.from_numpy, (self.P, self.r, self.d0)), horizon=self.horizon)  # type: ignore[arg-type]

    def occupancy(self, pi: Float[np.ndarray, "H X A"]) -> Float[np.ndarray, "H1 X"]:
        """How often a policy is in every state, levels 0 to H."""
        out = [self.d0]
        for P, now in zip(self.P, pi, strict=True):
            out.append(np.einsum("x,xa,xay->y", out[-1], now, P))
        return np.stack(out)

    def level(
        self, h: int, law: Float[np.ndarray, "X"], behavior: Float[np.ndarray, "X A"], n: int,
        rng: np.random.Generator,
    ) -> Level:  # fmt: skip
        """n independent steps of level h, from states of a law."""
        x = rng.choice(len(law), size=n, p=law / law.sum())
        a = drawn(behavior[x], rng)
        return Level(x, a, drawn(self.P[h, x, a], rng), behavior)

    def log(
        self, behavior: Float[np.ndarray, "H X A"], n: int, rng: np.random.Generator
    ) -> list[Level]:
        """n steps of every level, from where the behavior policy gets to."""
        law = self.occupancy(behavior)
        return [self.level(h, law[h], behavior[h], n, rng) for h in range(self.horizon)]


def low_rank_problem(
    seed: int, states: int = 60, actions: int = 4, d: int = 5, horizon: int = 8
) -> LowRankMDP:
    """Random simplexes. The last density is reached by the last action only, so that a behavior
    that leaves that action out hardly covers it."""
    rng = np.random.default_rng(seed)
    phi = rng.dirichlet(np.full(d, 0.5), size=(horizon, states, actions))
    phi[:, :, :-1, -1] *= 0.02
    phi[:, :, -1, -1] += 1.0
    phi /= phi.sum(-1, keepdims=True)
    mu = rng.dirichlet(np.full(states, 0.3), size=(horizon, d))
    r = rng.random((horizon, states, actions))
    return LowRankMDP(phi, mu, r, np.full(states, 1 / states))


def locked_problem(
    seed: int, states: int = 60, actions: int = 4, d: int = 5, horizon: int = 8
) -> LowRankMDP:
    """The same, but the last density has states of its own, and only from them (or at first) does
    the last action lead on to it: a policy gets there that takes it every time."""
    made = low_rank_problem(seed, states, actions, d, horizon)
    phi, mu = made.phi.copy(), made.mu.copy()
    own = slice(states - states // d, None)
    mu[:, :-1, own] = 0
    mu[:, -1, : own.start] = 0
    mu /= mu.sum(-1, keepdims=True)
    phi[..., -1] = 0
    phi /= phi.sum(-1, keepdims=True)
    leads = np.zeros(d)
    leads[0], leads[-1] = 0.1, 0.9
    phi[1:, own, -1] = leads
    phi[0, :, -1] = leads
    return LowRankMDP(phi, mu, made.r, made.d0)
