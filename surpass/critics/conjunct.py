"""Reward models for many actions: clusters of them, and the conjunct effect model fitted in two
steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from surpass.critics.deviations import Standardizer
from surpass.critics.rewards import Predictor, RewardModel, Ridge
from surpass.errors import InputError
from surpass.objectives.views import Query

__all__ = ["ActionClusters", "ConjunctEffects", "ridge_by_cg"]


@dataclass(frozen=True)
class ActionClusters:
    """A cluster for every action: given, or k-means on the actions' features (on what a ridge model
    learned of each action, where the log describes none). As a nuisance it fills "cluster" [N, A].

    Attributes:
        count: of clusters; None for the square root of the number of actions.
        given: the cluster of each action, which overrides k-means.
        seed: of k-means.
    """

    count: int | None = None
    given: tuple[int, ...] = ()
    seed: int = 0

    def assign(self, query: Query) -> Int[Tensor, "A"]:
        """The cluster of each action, numbered from 0.

        Raises:
            InputError: when clusters are given for another number of actions.
        """
        actions = query.target.shape[1]
        if self.given:
            if len(self.given) != actions:
                raise InputError(f"{len(self.given)} clusters given for {actions} actions")
            return torch.unique(torch.tensor(self.given), return_inverse=True)[1]
        count = min(self.count or max(2, round(actions**0.5)), actions)
        described = query.extras.get("action_features")
        if described is None:
            ridge = Ridge().fit(query.context, query.action, query.reward, n_actions=actions)
            described = ridge.coefficients.numpy()  # type: ignore[attr-defined]
        with warnings.catch_warnings():  # fewer distinct descriptions than clusters is no fault
            warnings.simplefilter("ignore")
            means = KMeans(count, n_init=4, random_state=self.seed)  # type: ignore[arg-type]
            found = np.asarray(means.fit_predict(np.asarray(described)))
        return torch.from_numpy(found.astype(np.int64))

    def learn(self, query: Query) -> Predictor:
        """The same clusters in every row."""
        cluster = self.assign(query)
        return lambda other: cluster.expand(len(other.reward), -1)


@dataclass(frozen=True)
class ConjunctEffects(RewardModel):
    """q(x, a) = g(x, cluster of a) + h(x, a): first the differences inside clusters, then levels.

    Step 1 minimizes sum over pairs that share context and cluster of
    ((r_a - r_b) - (h(x, a) - h(x, b)))^2, which is least squares after taking the group's mean off
    both sides (each row weighted by its group's size). Step 2 is a ridge regression of r - h on x
    and the cluster. h(x, a) = z_a' B [1, x], z the actions' features (one-hot where the log
    describes none), with a ridge penalty. Where fewer than `least` of the rows have a partner, h is
    fitted on all rows at once and g to what it leaves (the paper's one-step model).

    Saito, Ren and Joachims, Off-policy evaluation for large action spaces via conjunct effect
    modeling (2023).
    """

    clusters: ActionClusters = field(default_factory=ActionClusters)
    penalty: float = 30.0
    least: float = 0.2
    levels: Ridge = field(default_factory=Ridge)

    def learn(self, query: Query) -> Predictor:
        """Both steps on the rows of a query."""
        cluster = self.clusters.assign(query)
        design = _Design.of(query)
        logged = cluster[query.action]
        group = _groups(query.context, logged)
        size = torch.bincount(group).to(torch.float64)
        paired = size[group] > 1
        inside = float(paired.double().mean()) >= self.least
        keep = paired if inside else torch.ones_like(paired)
        center = _Demean(group[keep], size) if inside else None
        h = design.fit(query, keep, center, self.penalty)
        rest = (
            query.reward.to(torch.float64) - h(query.context).gather(1, query.action[:, None])[:, 0]
        )
        g = self.levels.fit(query.context, logged, rest, n_actions=int(cluster.max()) + 1)
        return lambda other: g.predict(other.context)[:, cluster] + h(other.context)


@dataclass(frozen=True)
class _Demean:
    """Takes the mean of each group off, times the root of the group's size."""

    group: Tensor
    size: Tensor

    def __call__(self, x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        total = torch.zeros_like(self.size).index_add_(0, self.group, x)
        return (x - (total / self.size)[self.group]) * self.size[self.group].sqrt()

    def adjoint(self, x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        x = x * self.size[self.group].sqrt()
        total = torch.zeros_like(self.size).index_add_(0, self.group, x)
        return x - (total / self.size)[self.group]


@dataclass(frozen=True)
class _Design:
    """z_a' B [1, x], without ever writing the products down."""

    standard: Standardizer
    z: Float[Tensor, "A k"] | None
    actions: int

    @classmethod
    def of(cls, query: Query) -> _Design:
        described, z = query.extras.get("action_features"), None
        if described is not None:
            raw = torch.as_tensor(np.asarray(described), dtype=torch.float64)
            z = Standardizer.of(raw).features(raw)
        return cls(Standardizer.of(query.context), z, query.target.shape[1])

    def fit(
        self, query: Query, keep: Tensor, center: _Demean | None, penalty: float
    ) -> Callable[[Tensor], Tensor]:
        x, a = self.standard.features(query.context)[keep], query.action[keep]
        r = query.reward.to(torch.float64)[keep]
        rows = self.actions if self.z is None else self.z.shape[1]
        z = None if self.z is None else self.z[a]

        def forward(b: Tensor) -> Tensor:
            out = (b[a] * x).sum(1) if z is None else ((z @ b) * x).sum(1)
            return out if center is None else center(out)

        def adjoint(y: Tensor) -> Tensor:
            y = y if center is None else center.adjoint(y)
            weighted = x * y[:, None]
            if z is None:
                return weighted.new_zeros(rows, x.shape[1]).index_add_(0, a, weighted)
            return z.T @ weighted

        b = ridge_by_cg(forward, adjoint, r if center is None else center(r), penalty)
        per_action = b if self.z is None else self.z @ b
        return lambda context: self.standard.features(context) @ per_action.T


def ridge_by_cg(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    target: Float[Tensor, "n"],
    penalty: float,
    iterations: int = 100,
    tolerance: float = 1e-9,
) -> Tensor:
    """argmin_b |forward(b) - target|^2 + penalty |b|^2 by conjugate gradients, for designs that are
    too large to write down.

    Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems (1952).
    """
    residual = adjoint(target)
    b = torch.zeros_like(residual)
    direction, now = residual.clone(), residual.square().sum()
    start = now.clone()
    for _ in range(iterations):
        if now <= tolerance**2 * start or now == 0:
            break
        image = adjoint(forward(direction)) + penalty * direction
        step = now / (direction * image).sum()
        b = b + step * direction
        residual = residual - step * image
        before, now = now, residual.square().sum()
        direction = residual + (now / before) * direction
    return b


def _groups(context: Float[Tensor, "N d"], cluster: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """A number for every (context, cluster)."""
    place = torch.unique(context, dim=0, return_inverse=True)[1]
    return torch.unique(place * (int(cluster.max()) + 1) + cluster, return_inverse=True)[1]
