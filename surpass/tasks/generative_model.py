"""Problems that may be asked anywhere: a simulator that gives next states of any state and action,
counts what it was asked, and knows the exact answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from surpass.errors import InputError
from surpass.tasks.draws import drawn

__all__ = ["GenerativeModel", "Net", "grid_pendulum", "random_model"]


class Net(NamedTuple):
    """Some of the states, `points` [m], and for every state the place [S] of the nearest."""

    points: Int[np.ndarray, "m"]
    nearest: Int[np.ndarray, "S"]


@dataclass
class GenerativeModel:
    """A discounted problem of finitely many states and actions, sampled at will.

    Attributes:
        following: next states [S, A, K]. probability: of each, [K] or [S, A, K].
        r: rewards [S, A], known. gamma: discount.
        shape: of the grid that the states lie on, in C order; () where they lie on none.
        calls: next states drawn so far.
    """

    following: Int[np.ndarray, "S A K"]
    probability: np.ndarray
    r: Float[np.ndarray, "S A"]
    gamma: float
    shape: tuple[int, ...] = ()
    calls: int = field(default=0, init=False)

    def sample(
        self, s: Int[np.ndarray, "m"], a: Int[np.ndarray, "m"], n: int, rng: np.random.Generator
    ) -> Int[np.ndarray, "m n"]:
        """n next states of every pair."""
        self.calls += len(s) * n
        p = np.broadcast_to(self.probability, self.following.shape)[s, a]
        return np.take_along_axis(self.following[s, a], drawn(p, rng, n), 1)

    def expected(self, v: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S A"]:
        """E[v(s')] for every pair, exactly; costs no calls."""
        p = np.broadcast_to(self.probability, self.following.shape)
        return (v[self.following] * p).sum(-1)

    def solve(self, tol: float = 1e-10) -> Float[np.ndarray, "S A"]:
        """Q*, by value iteration until it moves by less than `tol`."""
        q = self.r
        while True:
            new = self.r + self.gamma * self.expected(q.max(1))
            if np.abs(new - q).max() < tol:
                return new
            q = new

    def value(self, action: Int[np.ndarray, "S"], tol: float = 1e-10) -> Float[np.ndarray, "S"]:
        """What a deterministic policy is worth in every state."""
        S = np.arange(len(self.r))
        v = np.zeros(len(self.r))
        while True:
            new = (self.r + self.gamma * self.expected(v))[S, action]
            if np.abs(new - v).max() < tol:
                return new
            v = new

    def net(self, stride: int) -> Net:
        """Every `stride`-th state along each axis of the grid (the last ones always).

        Raises:
            InputError: when the states lie on no grid and the stride is not 1.
        """
        if stride == 1:
            every = np.arange(len(self.r))
            return Net(every, every)
        if not self.shape:
            raise InputError("these states lie on no grid: a net of some of them has stride 1")
        kept = [np.unique(np.append(np.arange(0, n, stride), n - 1)) for n in self.shape]
        near = [np.abs(np.arange(n)[:, None] - k).argmin(1)
                for n, k in zip(self.shape, kept, strict=True)]  # fmt: skip
        points = np.ravel_multi_index(np.ix_(*kept), self.shape).ravel()
        nearest = np.ravel_multi_index(np.ix_(*near), tuple(len(k) for k in kept)).ravel()
        return Net(points, nearest)


def grid_pendulum(
    angles: int = 25, speeds: int = 25, torques: int = 50, *, noise: float = 1.0, dt: float = 0.2,
    gamma: float = 0.9,
) -> GenerativeModel:  # fmt: skip
    """The pendulum of unit mass and length on a grid, torque in [-2, 2], with normal noise on the
    speed (five outcomes, Gauss-Hermite); rewards in [0, 1], 1 at rest upright. Its Q* is near rank
    2."""
    theta = np.linspace(-np.pi, np.pi, angles, endpoint=False)
    speed = np.linspace(-8, 8, speeds)
    t, w, u = np.meshgrid(theta, speed, np.linspace(-2, 2, torques), indexing="ij")
    r = 1 - (t**2 + 0.1 * w**2 + 0.001 * u**2) / (np.pi**2 + 6.4 + 0.004)
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    w2 = np.clip(w + (15 * np.sin(t) + 3 * u) * dt, -8, 8)[..., None] + noise * nodes
    t2 = t[..., None] + w2 * dt
    i = np.rint((t2 + np.pi) / (2 * np.pi) * angles).astype(int) % angles
    j = np.clip(np.rint((w2 + 8) / 16 * (speeds - 1)), 0, speeds - 1).astype(int)
    S = angles * speeds
    following = (i * speeds + j).reshape(S, torques, len(nodes))
    return GenerativeModel(following, weights / weights.sum(), r.reshape(S, torques), gamma,
                           (angles, speeds))  # fmt: skip


def random_model(
    states: int, actions: int, *, gamma: float = 0.9, branches: int = 5, seed: int = 0
) -> GenerativeModel:
    """Rewards and next states drawn alike for every pair, so that Q* has full rank."""
    rng = np.random.default_rng(seed)
    following = rng.integers(states, size=(states, actions, branches))
    p = rng.dirichlet(np.ones(branches), size=(states, actions))
    return GenerativeModel(following, p, rng.random((states, actions)), gamma)
