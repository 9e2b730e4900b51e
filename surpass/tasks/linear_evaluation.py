"""Evaluation problems whose value lies in a linear class, but not all that Bellman makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from surpass.objectives.alignment import Moments, moments
from surpass.tasks.draws import drawn
from surpass.tasks.tabular import TabularMDP

__all__ = ["LinearEvaluation", "Rows", "realizable", "two_states"]


class Rows(NamedTuple):
    """Sampled rows: features, Deltas from two independent next states, and noisy rewards."""

    phi: Float[np.ndarray, "... n d"]
    first: Float[np.ndarray, "... n d"]
    second: Float[np.ndarray, "... n d"]
    reward: Float[np.ndarray, "... n"]


@dataclass(frozen=True)
class LinearEvaluation:
    """A target policy `pi` [S, A] to be evaluated with features `phi` [S, A, d] from pairs that a
    behavior distribution `mu` [S, A] draws; rewards have normal noise.
    """

    mdp: TabularMDP
    phi: Float[np.ndarray, "S A d"]
    mu: Float[np.ndarray, "S A"]
    pi: Float[np.ndarray, "S A"]
    noise: float = 0.0

    @property
    def truth(self) -> float:
        """J(pi)."""
        return float(self.mdp.evaluate(torch.from_numpy(self.pi)).value)

    @property
    def ahead(self) -> Float[np.ndarray, "S d"]:
        """phi_pi(s)."""
        return np.einsum("sa,sad->sd", self.pi, self.phi)

    @property
    def start(self) -> Float[np.ndarray, "d"]:
        """E[phi_pi(s_0)], so that J of a value phi'theta is start'theta."""
        return self.mdp.d0.numpy() @ self.ahead

    def moments(self) -> Moments:
        """Exactly, from the tables."""
        delta = self.phi - self.mdp.gamma * self.mdp.P.numpy() @ self.ahead
        d = self.phi.shape[-1]
        occupied = self.mdp.occupancy(torch.from_numpy(self.pi)).numpy()
        goal = np.einsum("sa,sad->d", occupied, delta)
        return moments(self.phi.reshape(-1, d), delta.reshape(-1, d), goal, self.mu.ravel())

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Rows:
        """Rows drawn from mu."""
        S, A = self.mu.shape
        at = rng.choice(S * A, size=shape, p=self.mu.ravel())
        s, a = at // A, at % A
        P = self.mdp.P.numpy().reshape(S * A, S)
        phi, gamma = self.phi[s, a], self.mdp.gamma

        def delta() -> np.ndarray:
            return phi - gamma * self.ahead[drawn(P[at], rng)]

        paid = self.mdp.r.numpy()[s, a] + self.noise * rng.normal(size=shape)
        return Rows(phi, delta(), delta(), paid)


def realizable(seed: int, states: int = 6, actions: int = 2, d: int = 3) -> LinearEvaluation:
    """A random problem, gamma 0.9, with Q^pi among its features and the others at random."""
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(states, 0.3), size=(states, actions))
    pi = rng.dirichlet(np.ones(actions), size=states)
    mu = rng.dirichlet(np.full(states * actions, 0.5)).reshape(states, actions)
    mu = 0.98 * mu + 0.02 / mu.size
    start = np.full(states, 1 / states)
    mdp = TabularMDP(*map(torch.from_numpy, (P, rng.random((states, actions)), start)), gamma=0.9)
    q = mdp.evaluate(torch.from_numpy(pi)).q.numpy()
    phi = rng.normal(size=(states, actions, d)) / np.sqrt(states * actions)
    phi[..., 0] = q / np.linalg.norm(q)
    return LinearEvaluation(mdp, phi, mu, pi, 0.5)


def two_states(first: float, gamma: float = 0.9) -> LinearEvaluation:
    """States of value w and 2 w, both followed by the second; rewards are noise of deviation 1, and
    a share `first` of the rows begins in the first. At `first` = 4 (1 - gamma) / (3 - 2 gamma) no
    fixed point exists."""
    P = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])
    mdp = TabularMDP(P, torch.zeros(2, 1), torch.tensor([1.0, 0.0]), gamma)
    mu = np.array([[first], [1 - first]])
    return LinearEvaluation(mdp, np.array([[[1.0]], [[2.0]]]), mu, np.ones((2, 1)), 1.0)
