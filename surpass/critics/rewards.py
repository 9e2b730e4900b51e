"""Reward models for logged decisions: q(x, a) for every action, and how they are fitted by folds.

A model is a frozen description; `fit` gives a fitted one, whose `predict(context)` is [N, A]. What
an estimator needs fitted first is a `Nuisance`: `learn(query)` gives a function from a query to a
column, and `cross_fitted` makes every row's entry from folds that the row is not in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from surpass.critics.deviations import Standardizer, grams, solve_deviations
from surpass.errors import InputError
from surpass.objectives.views import Query
from surpass.parts import Part

__all__ = [
    "Boosting",
    "CrossFitted",
    "FittedRewards",
    "Logistic",
    "Nuisance",
    "RewardModel",
    "Reweighted",
    "Ridge",
    "Sklearn",
    "cross_fitted",
    "fold_of",
]  # fmt: skip


@runtime_checkable
class FittedRewards(Protocol):
    """A fitted reward model."""

    def predict(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        """The predicted reward of every action, in double precision."""
        ...


Predictor = Callable[[Query], Tensor]


@runtime_checkable
class Nuisance(Protocol):
    """Something fitted to logged decisions before a score can be computed."""

    def learn(self, query: Query) -> Predictor:
        """Fit; the result gives a row's column from a query of other rows."""
        ...


class RewardModel:
    """The base of the models here: say how to `fit`, and it serves as the nuisance `q` too."""

    @abstractmethod
    def fit(
        self,
        context: Float[Tensor, "N d"],
        action: Int[Tensor, "N"],
        reward: Float[Tensor, "N"],
        weight: Float[Tensor, "N"] | None = None,
        *,
        n_actions: int | None = None,
    ) -> FittedRewards:
        """Fit to logged decisions; `weight` counts rows, `n_actions` names actions that were never
        logged."""

    def learn(self, query: Query) -> Predictor:
        """Fit to the rows of a query."""
        fitted = self.fit(
            query.context, query.action, query.reward, n_actions=query.target.shape[-1]
        )
        return lambda other: fitted.predict(other.context)


@dataclass(frozen=True)
class Ridge(RewardModel):
    """A shared linear model plus a linear deviation per action, in closed form.

    Formula: q(x, a) = v(x) + d_a(x) on standardized columns; `intercept` and `slopes` are added to
    the Gram matrix of d_a (large values pull every action toward v). Hoerl and Kennard, Ridge
    regression: biased estimation for nonorthogonal problems (1970).
    """

    intercept: float = 10.0
    slopes: float = 30.0

    def fit(self, context: Tensor, action: Tensor, reward: Tensor, weight: Tensor | None = None,
            *, n_actions: int | None = None) -> FittedRewards:  # fmt: skip
        actions = n_actions or int(action.max()) + 1
        standard = Standardizer.of(context)
        x, r = standard.features(context), reward.to(torch.float64)
        if weight is not None:
            mean = float(weight.mean())
            root = (weight.to(torch.float64) / (mean if mean > 0 else 1.0)).sqrt()
            x, r = x * root[:, None], r * root
        shared, theta = solve_deviations(
            grams(x, r, action, actions), [(self.intercept, self.slopes)]
        )
        return _Linear(standard, theta[0] + shared)


@dataclass(frozen=True)
class _Linear:
    standard: Standardizer
    coefficients: Float[Tensor, "A d+1"]

    def predict(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        return self.standard.features(context) @ self.coefficients.T


@dataclass(frozen=True)
class Sklearn(RewardModel):
    """Any scikit-learn regressor or classifier on [x, action].

    A classifier is for rewards of two values; the action is one-hot unless `categorical`, where it
    is one integer column that the model knows to be categories.
    """

    model: BaseEstimator
    categorical: bool = False
    interactions: bool = False

    def fit(self, context: Tensor, action: Tensor, reward: Tensor, weight: Tensor | None = None,
            *, n_actions: int | None = None) -> FittedRewards:  # fmt: skip
        actions = n_actions or int(action.max()) + 1
        target, levels = reward.numpy().astype(np.float64), None
        if is_classifier(self.model):
            levels = np.unique(target)
            if len(levels) > 2:
                raise InputError(
                    f"{type(self.model).__name__} predicts two values, but the reward takes "
                    f"{len(levels)}; use a regressor such as ridge"
                )
            if len(levels) < 2:
                return _Constant(float(levels[0]), actions)
            target = (target == levels[1]).astype(np.int64)
        standard = Standardizer.of(context)
        fitted = _FittedSklearn(clone(self.model), standard, actions, self, levels)
        keep = {} if weight is None else {"sample_weight": weight.numpy()}
        fitted.model.fit(fitted.design(context, action), target, **keep)
        return fitted


@dataclass(frozen=True)
class _Constant:
    value: float
    actions: int

    def predict(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        return torch.full((len(context), self.actions), self.value, dtype=torch.float64)


@dataclass(frozen=True)
class _FittedSklearn:
    model: Any
    standard: Standardizer
    actions: int
    how: Sklearn
    levels: np.ndarray | None

    def design(self, context: Tensor, action: Tensor) -> np.ndarray:
        x = self.standard.features(context)[:, 1:]
        if self.how.categorical:
            return torch.cat((x, action[:, None].to(x)), 1).numpy()
        one_hot = torch.nn.functional.one_hot(action, self.actions).to(x)
        columns = [x, one_hot]
        if self.how.interactions:
            columns.append((one_hot[:, :, None] * x[:, None, :]).flatten(1))
        return torch.cat(columns, 1).numpy()

    def predict(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        out = torch.empty(len(context), self.actions, dtype=torch.float64)
        for a in range(self.actions):
            design = self.design(context, torch.full((len(context),), a))
            if self.levels is None:
                found = self.model.predict(design)
            else:
                share = self.model.predict_proba(design)[:, 1]
                found = self.levels[0] + (self.levels[1] - self.levels[0]) * share
            out[:, a] = torch.from_numpy(np.asarray(found, dtype=np.float64))
        return out


@dataclass(frozen=True)
class Logistic(RewardModel):
    """Logistic regression on [x, action] and their products, for rewards of two values; `c` is the
    inverse penalty."""

    c: float = 0.1
    interactions: bool = True

    def fit(self, context: Tensor, action: Tensor, reward: Tensor, weight: Tensor | None = None,
            *, n_actions: int | None = None) -> FittedRewards:  # fmt: skip
        inner = Sklearn(LogisticRegression(C=self.c, max_iter=500), interactions=self.interactions)
        return inner.fit(context, action, reward, weight, n_actions=n_actions)


@dataclass(frozen=True)
class Boosting(RewardModel):
    """Gradient boosted trees on [x, action], a classifier where the reward takes two values.

    Ke and others, LightGBM: a highly efficient gradient boosting decision tree (2017), in
    scikit-learn's implementation.
    """

    trees: int = 100
    leaves: int = 15
    rate: float = 0.08
    smallest_leaf: int = 40
    seed: int = 0

    def fit(self, context: Tensor, action: Tensor, reward: Tensor, weight: Tensor | None = None,
            *, n_actions: int | None = None) -> FittedRewards:  # fmt: skip
        actions = n_actions or int(action.max()) + 1
        few = actions <= 255  # scikit-learn's limit of categories
        categories = [context.shape[1]] if few else None
        two = len(torch.unique(reward)) <= 2
        kind: Any = HistGradientBoostingClassifier if two else HistGradientBoostingRegressor
        model: Any = kind(
            max_iter=self.trees, max_leaf_nodes=self.leaves, learning_rate=self.rate,
            min_samples_leaf=self.smallest_leaf, early_stopping=False, random_state=self.seed,
            categorical_features=categories,
        )  # fmt: skip
        return Sklearn(model, categorical=few).fit(
            context, action, reward, weight, n_actions=actions
        )


@dataclass(frozen=True)
class Reweighted:
    """A reward model fitted with a weight per row that depends on the target policy, such as
    MRDR's."""

    weight: Part[[Query], Tensor]
    model: RewardModel = field(default_factory=Ridge)
    per_target = True

    def learn(self, query: Query) -> Predictor:
        """Fit to the rows of a query, weighted."""
        fitted = self.model.fit(
            query.context, query.action, query.reward, self.weight(query),
            n_actions=query.target.shape[-1],
        )  # fmt: skip
        return lambda other: fitted.predict(other.context)


# ----------------------------------------------------------------------------------------------
# folds


@dataclass(frozen=True)
class CrossFitted:
    """`column`: every row's entry by a model that saw none of its unit's rows. `predictor`: fitted
    to all rows, for rows that come later."""

    column: Tensor
    predictor: Predictor


def fold_of(
    n: int, folds: int, unit: Int[Tensor, "n"] | None = None, seed: int = 0
) -> Int[Tensor, "n"]:
    """A fold number per row, balanced at random; rows of one unit share it.

    Raises:
        InputError: when there are fewer units than folds.
    """
    place = torch.arange(n) if unit is None else torch.unique(unit, return_inverse=True)[1]
    count = int(place.max()) + 1 if n else 0
    if folds < 2 or count < folds:
        raise InputError(f"{folds} folds need as many units; there are {count}. Use fewer folds")
    order = np.random.default_rng(seed).permutation(count)
    return torch.from_numpy(order % folds)[place]


def cross_fitted(
    nuisance: Nuisance,
    query: Query,
    *,
    folds: int = 5,
    unit: Int[Tensor, "N"] | None = None,
    seed: int = 0,
) -> CrossFitted:
    """Fit by folds: Chernozhukov and others, Double/debiased machine learning for treatment and
    structural parameters (2018)."""
    fold = fold_of(len(query.reward), folds, unit, seed)
    column: Tensor | None = None
    for k in range(folds):
        inside = (fold == k).nonzero()[:, 0]
        found = nuisance.learn(query.rows((fold != k).nonzero()[:, 0]))(query.rows(inside))
        if column is None:
            column = found.new_zeros((len(fold), *found.shape[1:]))
        column[inside] = found
    assert column is not None
    return CrossFitted(column, nuisance.learn(query))
