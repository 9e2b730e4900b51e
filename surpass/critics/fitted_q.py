"""Fitted Q evaluation with linear features: what a target policy's actions are worth, from episodes
of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.views import TrajectoryQuery

__all__ = ["FittedQ", "Fourier", "RandomBins"]

PathPredictor = Callable[[TrajectoryQuery], Tensor]


@dataclass(frozen=True)
class Fourier:
    """[1, x, cos(W x + b)]: random features of a Gaussian kernel of width `width` on columns that
    are standardized first.

    Rahimi and Recht, Random features for large-scale kernel machines (2007).
    """

    count: int = 40
    width: float = 2.0
    seed: int = 0

    def of(self, x: Float[Tensor, "M d"]) -> Callable[[Tensor], Tensor]:
        """Fit the standardization; the result maps [..., d] to [..., 1 + d + count]."""
        spread, mean = x.std(0, unbiased=False), x.mean(0)
        spread = torch.where(spread > 1e-9, spread, torch.ones_like(spread))
        rng = np.random.default_rng(self.seed)
        w = torch.from_numpy(rng.normal(size=(x.shape[1], self.count)) / self.width)
        b = torch.from_numpy(rng.uniform(0, 2 * np.pi, self.count))

        def features(y: Tensor) -> Tensor:
            z = (y.to(torch.float64) - mean) / spread
            one = torch.ones_like(z[..., :1])
            return torch.cat((one, z, torch.cos(z @ w + b)), -1)

        return features


def raw(x: Tensor) -> Tensor:
    """The observation itself (one-hot states): tabular."""
    return x.to(torch.float64)


@dataclass(frozen=True)
class FittedQ:
    """q(s, a) = phi(s)' b_a of the target policy, the nuisance "q" [N, T, A] of episodes.

    One stationary q solves the moments sum phi(s,a) (r + gamma v(s') - q(s,a)) = ridge b (least
    squares temporal differences: Bradtke and Barto, 1996). `by_step` fits a q for every step from
    the last to the first (fitted Q evaluation: Le, Voloshin and Yue, Batch policy learning under
    constraints, 2019), which is what a horizon needs. `features` None takes the observation itself.
    Behind the
    last step of an episode the value is 0.
    """

    features: Fourier | None = None
    by_step: bool = False
    ridge: float = 1e-3
    per_target = True

    def learn(self, query: TrajectoryQuery) -> PathPredictor:
        """Fit to the episodes of a query."""
        inside = query.mask > 0
        seen = query.context[inside].to(torch.float64)
        made = raw if self.features is None else self.features.of(seen)
        solve = self._by_step if self.by_step else self._stationary
        b = solve(query, made(query.context))  # [T or 1, A, k]

        def predict(other: TrajectoryQuery) -> Tensor:
            steps = b.expand(other.context.shape[1], -1, -1)
            found = torch.einsum("ntk,tak->nta", made(other.context), steps)
            return found * other.mask[..., None]

        return predict

    def _by_step(self, query: TrajectoryQuery, phi: Tensor) -> Float[Tensor, "T A k"]:
        n, T, actions = query.target.shape
        k = phi.shape[-1]
        out = phi.new_zeros(T, actions, k)
        eye = self.ridge * torch.eye(k, dtype=phi.dtype)
        after = phi.new_zeros(n)
        for t in reversed(range(T)):
            y = query.reward[:, t] + query.gamma * after
            for a in range(actions):
                rows = ((query.action[:, t] == a) & (query.mask[:, t] > 0)).to(phi.dtype)
                x = phi[:, t] * rows[:, None]
                out[t, a] = torch.linalg.solve(x.T @ x + eye, x.T @ y)
            value = (query.target[:, t] * (phi[:, t] @ out[t].T)).sum(-1)
            after = query.mask[:, t] * value
        return out

    def _stationary(self, query: TrajectoryQuery, phi: Tensor) -> Float[Tensor, "1 A k"]:
        _, _, actions = query.target.shape
        k = phi.shape[-1]
        taken = torch.nn.functional.one_hot(query.action, actions).to(phi.dtype)
        here = _product(taken, phi)[query.mask > 0]
        follows = torch.zeros_like(query.mask)
        follows[:, :-1] = query.mask[:, 1:]
        then = torch.zeros_like(phi)
        then[:, :-1] = phi[:, 1:]
        pi = torch.zeros_like(query.target)
        pi[:, :-1] = query.target[:, 1:]
        then = (_product(pi, then) * follows[..., None])[query.mask > 0]
        left = here.T @ (here - query.gamma * then)
        left += self.ridge * torch.eye(actions * k, dtype=phi.dtype)
        right = here.T @ query.reward[query.mask > 0]
        return torch.linalg.solve(left, right).view(1, actions, k)


def _product(weight: Float[Tensor, "N T A"], phi: Float[Tensor, "N T k"]) -> Tensor:
    return (weight[..., None] * phi[..., None, :]).flatten(-2)


@dataclass(frozen=True)
class RandomBins:
    """The nearest of `count` centers that lie at random in the box of the observations: the column
    "bin" [N, T], with no use of what the log says about them.

    `shown` keeps some coordinates only, None all.
    """

    count: int = 32
    seed: int = 0
    shown: tuple[int, ...] | None = None

    def learn(self, query: TrajectoryQuery) -> PathPredictor:
        """Place the centers in the box of the visited observations."""
        keep = list(self.shown or range(query.context.shape[-1]))
        seen = query.context[query.mask > 0][:, keep].to(torch.float64)
        low, width = seen.amin(0), (seen.amax(0) - seen.amin(0)).clamp_min(1e-9)
        rng = np.random.default_rng(self.seed)
        centers = torch.from_numpy(rng.uniform(size=(self.count, len(keep))))

        def nearest(other: TrajectoryQuery) -> Tensor:
            x = (other.context[..., keep].to(torch.float64) - low) / width
            return torch.cdist(x.flatten(0, -2), centers).argmin(-1).view(x.shape[:-1])

        return nearest
