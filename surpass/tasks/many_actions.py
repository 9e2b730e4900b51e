"""A population with very many described actions, whose reward is a cluster's effect plus what
differs inside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import About, Decisions
from surpass.data.truth import Truth

__all__ = ["ManyActions", "many_actions"]


@dataclass(frozen=True)
class ManyActions:
    """`truth` (contexts, expected rewards, logging), the target policy [M, A], the `cluster` [A]
    and one-hot `features` [A, 50] of the actions, and `inside` [M, A], the part of the reward that
    differs inside clusters."""

    truth: Truth
    target: Float[Tensor, "M A"]
    cluster: Int[Tensor, "A"]
    features: Float[Tensor, "A k"]
    inside: Float[Tensor, "M A"]

    def draw(self, rows: int, seed: int, noise: float = 3.0) -> Decisions:
        """A log whose `about` describes the actions."""
        about = About(name="many actions", action_features=self.features)
        return self.truth.draw(rows, noise=noise, seed=seed, about=about)

    def placed(self, table: Float[Tensor, "M A"], log: Decisions) -> Float[Tensor, "N A"]:
        """Rows of a table of the population for the contexts of a log."""
        known, place = torch.unique(
            torch.cat((self.truth.contexts, log.context)), dim=0, return_inverse=True
        )
        row = torch.empty(len(known), dtype=torch.int64)
        row[place[: len(self.truth.contexts)]] = torch.arange(len(self.truth.contexts))
        return table[row[place[len(self.truth.contexts) :]]]


def many_actions(
    actions: int, clusters: int = 50, users: int = 200, *, temperature: float = -0.1,
    epsilon: float = 0.2, seed: int = 0,
) -> ManyActions:  # fmt: skip
    """Contexts x ~ N(0, I_10) of a few users; ten features of five levels per action; the cluster
    by a random linear score of the features.

    q(x, a) = g(x, c) + h(x, a), with g a step and a square of random projections of x and the
    cluster, and h bilinear in x and the features with parameters of the cluster's own. Logging is
    softmax(temperature q), the target takes the best action, and a random one with `epsilon`.
    After Saito, Ren and Joachims, Off-policy evaluation for large action spaces via conjunct
    effect modeling (2023).
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(users, 10))
    levels = rng.integers(5, size=(actions, 10))
    z = np.eye(5)[levels].reshape(actions, 50)
    score = z @ rng.normal(size=(50, clusters))
    weight = np.exp(score - score.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    cluster = (rng.random((actions, 1)) >= weight.cumsum(1)).sum(1).clip(max=clusters - 1)
    own = rng.uniform(-1, 1, size=(clusters, 10, 50)) / 5
    tilt = rng.uniform(-1, 1, size=(clusters, 50)) / 2
    inside = np.einsum("md,adk,ak->ma", x, own[cluster], z, optimize=True)
    inside += (tilt[cluster] * z).sum(1)
    first, second = rng.normal(size=(2, 10, clusters)) / np.sqrt(10)
    effect = 2.0 * (x @ first > 0) + (x @ second) ** 2 + rng.normal(size=clusters)
    q = torch.from_numpy(effect[:, cluster] + inside)
    logging = torch.softmax(temperature * q, 1)
    target = torch.full_like(q, epsilon / actions)
    target[torch.arange(users), q.argmax(1)] += 1 - epsilon
    truth = Truth(torch.from_numpy(x), q, logging)
    return ManyActions(
        truth, target, torch.from_numpy(cluster), torch.from_numpy(z), torch.from_numpy(inside)
    )
