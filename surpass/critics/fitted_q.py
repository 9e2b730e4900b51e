"""Fitted Q evaluation with linear features: what a target policy's actions are worth, from episodes
of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import TrajectoryQuery, ones_like_rows

__all__ = ["Bootstrapped", "FittedQ", "Fourier", "RandomBins", "here_and_later"]

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
    constraints, 2019), which is what a horizon needs: the longest episode's length. None takes it
    where the discount is 1 and episodes were cut, else one q. `features` None takes the observation
    itself. Behind a last step that ended its episode the value is 0; behind one that was cut it is
    that of what was observed there, except at the horizon. A query with cuts gets [N, T + 1, A],
    the values beyond the cuts in the last place.
    """

    features: Fourier | None = None
    by_step: bool | None = None
    ridge: float = 1e-3
    per_target = True

    def learn(self, query: TrajectoryQuery) -> PathPredictor:
        """Fit to the episodes of a query.

        Raises:
            InputError: when one value is asked for all steps, and it would be infinite.
        """
        inside = query.mask > 0
        seen = query.context[inside].to(torch.float64)
        made = raw if self.features is None else self.features.of(seen)
        cut = query.cut is not None and bool((query.cut > 0).any())
        stepwise = (query.gamma == 1 and cut) if self.by_step is None else self.by_step
        if cut and query.gamma == 1 and not stepwise:
            raise InputError(
                "episodes were cut and the discount is 1: one value for all steps would be "
                "infinite; give a discount below 1, or values by step"
            )
        b = (self._by_step if stepwise else self._stationary)(query, made)  # [T or 1, A, k]

        def predict(other: TrajectoryQuery) -> Tensor:
            steps = b.expand(other.context.shape[1], -1, -1)
            found = torch.einsum("ntk,tak->nta", made(other.context), steps)
            found = found * other.mask[..., None]
            if other.cut is None:
                return found
            behind = _beyond(other, made, b, stepwise) * other.cut[:, None]
            return torch.cat((found, behind[:, None]), 1)

        return predict

    def _by_step(
        self, query: TrajectoryQuery, made: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "T A k"]:
        n, T, actions = query.target.shape
        phi = made(query.context)
        k = phi.shape[-1]
        out = phi.new_zeros(T, actions, k)
        eye = self.ridge * torch.eye(k, dtype=phi.dtype)
        after = phi.new_zeros(n)
        last = query.mask.sum(1).long() - 1
        weight = ones_like_rows(query)
        for t in reversed(range(T)):
            if query.cut is not None and t + 1 < T:
                behind = (query.beyond_target * (made(query.beyond) @ out[t + 1].T)).sum(-1)
                after = torch.where((last == t) & (query.cut > 0), behind, after)
            y = query.reward[:, t] + query.gamma * after
            for a in range(actions):
                rows = ((query.action[:, t] == a) & (query.mask[:, t] > 0)).to(phi.dtype)
                x = phi[:, t] * (rows * weight)[:, None]
                out[t, a] = torch.linalg.solve(x.T @ phi[:, t] + eye, x.T @ y)
            value = (query.target[:, t] * (phi[:, t] @ out[t].T)).sum(-1)
            after = query.mask[:, t] * value
        return out

    def _stationary(
        self, query: TrajectoryQuery, made: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "1 A k"]:
        phi, actions = made(query.context), query.target.shape[-1]
        k = phi.shape[-1]
        here, then = here_and_later(query, made, phi)
        inside = query.mask > 0
        here, then = here[inside], then[inside]
        weighed = here * ones_like_rows(query)[:, None].expand_as(query.mask)[inside][:, None]
        left = weighed.T @ (here - query.gamma * then)
        left += self.ridge * torch.eye(actions * k, dtype=phi.dtype)
        right = weighed.T @ query.reward[inside]
        return torch.linalg.solve(left, right).view(1, actions, k)


def here_and_later(
    query: TrajectoryQuery, made: Callable[[Tensor], Tensor], phi: Float[Tensor, "N T k"]
) -> tuple[Float[Tensor, "N T Ak"], Float[Tensor, "N T Ak"]]:
    """The features of the logged action, and one step later those of the target's: 0 behind an
    end, those of what was observed there behind a cut."""
    taken = torch.nn.functional.one_hot(query.action, query.target.shape[-1]).to(phi.dtype)
    beyond = None
    if query.cut is not None:
        beyond = _product(query.beyond_target, made(query.beyond))
    return _product(taken, phi), query.later(_product(query.target, phi), beyond)


def _beyond(
    query: TrajectoryQuery, made: Callable[[Tensor], Tensor], b: Float[Tensor, "T A k"],
    stepwise: bool,
) -> Float[Tensor, "N A"]:  # fmt: skip
    """Values of all actions behind the last step; 0 at the horizon of step-wise values."""
    phi = made(query.beyond)
    if not stepwise:
        return phi @ b[0].T
    at = torch.cat((b, torch.zeros_like(b[:1])))[query.mask.sum(1).long()]
    return torch.einsum("nk,nak->na", phi, at)


def _product(weight: Float[Tensor, "... A"], phi: Float[Tensor, "... k"]) -> Tensor:
    return (weight[..., None] * phi[..., None, :]).flatten(-2)


@dataclass(frozen=True)
class Bootstrapped:
    """The nuisance "start" of a model that is fitted again and again, each time under other random
    weights of the episodes: the spread of its values is that of repeated logs.

    Exponential weights, one an episode: Rubin, The Bayesian bootstrap (1981); for fitted Q
    evaluation Hao, Ji, Duan, Lu, Szepesvari and Wang, Bootstrapping fitted Q-evaluation for
    off-policy inference (2021).
    """

    model: FittedQ = FittedQ()
    members: int = 20
    seed: int = 0

    def starts(self, query: TrajectoryQuery) -> tuple[Float[Tensor, "N n"], Float[Tensor, "N n"]]:
        """Each member's value of every start, and its weights."""
        generator = torch.Generator().manual_seed(self.seed)
        weight = torch.empty(len(query.reward), self.members, dtype=query.reward.dtype)
        weight = weight.exponential_(generator=generator)
        weight = weight / weight.mean(0)
        values = []
        for w in weight.T:
            q = self.model.learn(replace(query, weights=w))(query)
            values.append((query.target[:, 0] * q[:, 0]).sum(-1))
        return torch.stack(values, 1), weight


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
