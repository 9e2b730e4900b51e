"""A reward model for decision logs in closed form: a shared ridge model plus a ridge deviation per
action.

q(x, a) = v(x) + d_a(x): v is fitted to the rewards of all rows, d_a to what v leaves of the rows of
action a. Both come from Gram matrices alone, so that every penalty and every fold of a
cross-validation costs only small solves.
Ridge regression: Hoerl and Kennard, Ridge regression: biased estimation for nonorthogonal problems
    (1970).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = [
    "PENALTIES",
    "DeviationModel",
    "Grams",
    "Standardizer",
    "deviation_scale",
    "grams",
    "solve_deviations",
]

# (intercept, slopes), added to the Gram matrix of standardized features; the last is context-free
PENALTIES = ((10.0, 10.0), (300.0, 300.0), (3000.0, 3000.0), (100.0, 1e7))
_SHARED_SLOPE_PENALTY = 10.0


@dataclass(frozen=True)
class Standardizer:
    """Means and spreads of the context's columns on the learning rows; constant columns become
    0."""

    mean: Float[Tensor, "d"]
    spread: Float[Tensor, "d"]

    @classmethod
    def of(cls, context: Float[Tensor, "N d"]) -> Standardizer:
        """Fit on rows."""
        x = context.to(torch.float64)
        spread = x.std(0, unbiased=False)
        return cls(x.mean(0), torch.where(spread > 1e-12, spread, torch.ones_like(spread)))

    def features(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N d+1"]:
        """[1, z]: the intercept and the standardized columns."""
        n, d = context.shape
        out = torch.empty(n, d + 1, dtype=torch.float64)
        out[:, 0] = 1.0
        torch.sub(context, self.mean, out=out[:, 1:]).div_(self.spread)
        return out


@dataclass(frozen=True)
class Grams:
    """Sums over the rows of each fold and action: x x' [K, A, D, D], x r [K, A, D] and counts [K,
    A]."""

    second: Float[Tensor, "K A D D"]
    first: Float[Tensor, "K A D"]
    count: Float[Tensor, "K A"]

    def without(self, fold: int) -> Grams:
        """The sums over all folds but one, as K = 1."""
        return Grams(*((t.sum(0) - t[fold])[None] for t in (self.second, self.first, self.count)))

    def total(self) -> Grams:
        """The sums over all folds, as K = 1."""
        return Grams(*(t.sum(0, keepdim=True) for t in (self.second, self.first, self.count)))


def grams(
    features: Float[Tensor, "N D"],
    reward: Float[Tensor, "N"],
    action: Int[Tensor, "N"],
    n_actions: int,
    fold: Int[Tensor, "N"] | None = None,
    folds: int = 1,
) -> Grams:
    """Gram matrices by fold and action, in one pass over the rows."""
    size = features.shape[1]
    key = action if fold is None else fold * n_actions + action
    counts = torch.bincount(key, minlength=folds * n_actions)
    order = torch.argsort(key, stable=True)
    second = features.new_zeros(folds * n_actions, size, size)
    first = features.new_zeros(folds * n_actions, size)
    x, r = features[order], reward[order]
    for place, (rows, paid) in enumerate(
        zip(x.split(counts.tolist()), r.split(counts.tolist()), strict=True)
    ):
        if len(rows):
            torch.mm(rows.T, rows, out=second[place])
            torch.mv(rows.T, paid, out=first[place])
    shape = (folds, n_actions)
    return Grams(
        second.view(*shape, size, size), first.view(*shape, size), counts.view(shape).to(features)
    )


def solve_deviations(
    sums: Grams, penalties: Sequence[tuple[float, float]] = PENALTIES
) -> tuple[Float[Tensor, "D"], Float[Tensor, "P A D"]]:
    """The shared coefficients and each action's deviation, for every penalty, from sums with K = 1.

    Formula: v = (G + S)^-1 b with G = sum_a G_a and b = sum_a b_a, S = 10 on slopes;
    theta_a = (G_a + diag(intercept, slopes ...))^-1 (b_a - G_a v).
    """
    second, first = sums.second[0], sums.first[0]
    size = first.shape[-1]
    shrink = first.new_full((size,), _SHARED_SLOPE_PENALTY)
    shrink[0] = 1e-6
    shared = torch.linalg.solve(second.sum(0) + torch.diag(shrink), first.sum(0))
    diagonal = first.new_tensor(
        [[intercept] + [slope] * (size - 1) for intercept, slope in penalties]
    )
    left = second[None] + torch.diag_embed(diagonal)[:, None]
    right = first - second @ shared
    theta = torch.linalg.solve(left, right.expand(len(penalties), -1, -1)[..., None])[..., 0]
    return shared, theta


def deviation_scale(
    deviation: Float[Tensor, "... N A"], reference: Float[Tensor, "N A"]
) -> Float[Tensor, "..."]:
    """sd(d): the root mean square over rows of d's standard deviation under the reference; 1 where
    that is 0."""
    mean = (reference * deviation).sum(-1, keepdim=True)
    variance = (reference * (deviation - mean) ** 2).sum(-1).mean(-1)
    return torch.where(variance > 1e-24, variance.sqrt(), torch.ones_like(variance))


class DeviationModel(nn.Module):
    """q(x, a) = v(x) + d_a(x), fitted: buffers `mean`, `spread` [d], `shared` [d + 1], `theta` [A,
    d + 1]."""

    mean: Tensor
    spread: Tensor
    shared: Tensor
    theta: Tensor

    def __init__(self, n_features: int, n_actions: int) -> None:
        super().__init__()
        self.config = {"n_features": n_features, "n_actions": n_actions}
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(n_features, dtype=torch.float64))
        self.register_buffer("shared", torch.zeros(n_features + 1, dtype=torch.float64))
        self.register_buffer("theta", torch.zeros(n_actions, n_features + 1, dtype=torch.float64))

    @classmethod
    def of(cls, standardizer: Standardizer, shared: Tensor, theta: Tensor) -> DeviationModel:
        """From coefficients that were solved for."""
        model = cls(theta.shape[1] - 1, theta.shape[0])
        model.mean, model.spread = standardizer.mean, standardizer.spread
        model.shared, model.theta = shared, theta
        return model

    @classmethod
    def fit(
        cls,
        context: Float[Tensor, "N d"],
        action: Int[Tensor, "N"],
        reward: Float[Tensor, "N"],
        n_actions: int,
        penalty: tuple[float, float] = PENALTIES[1],
    ) -> DeviationModel:
        """Standardize, sum, solve."""
        standardizer = Standardizer.of(context)
        x = standardizer.features(context)
        sums = grams(x, reward.to(torch.float64), action, n_actions)
        shared, theta = solve_deviations(sums, [penalty])
        return cls.of(standardizer, shared, theta[0])

    def forward(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        """Predicted reward of every action."""
        z = (context.to(self.theta.dtype) - self.mean) / self.spread
        both = self.theta + self.shared
        return both[:, 0] + z @ both[:, 1:].T
