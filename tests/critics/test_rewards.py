"""Reward models against known functions, exact solutions and leave-out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from surpass.critics.rewards import (
    Boosting,
    Logistic,
    Reweighted,
    Ridge,
    Sklearn,
    cross_fitted,
    fold_of,
)
from surpass.errors import InputError
from surpass.objectives.scores import mrdr_weight
from surpass.objectives.views import Query

A, D = 3, 2


def world(n: int, seed: int = 0):
    """Contexts, uniform actions, q(x, a) = sigmoid(w_a x) and a binary reward."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    w = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    a = torch.randint(A, (n,), generator=g)
    q = torch.sigmoid(x @ w.T)
    r = torch.bernoulli(q.gather(1, a[:, None])[:, 0], generator=g)
    return x, a, r, q


@pytest.mark.parametrize(
    ("model", "bar"),
    [(Ridge(), 0.075), (Logistic(), 0.03), (Boosting(trees=60), 0.075),
     (Sklearn(LinearRegression(), interactions=True), 0.075)],
)  # fmt: skip
def test_models_find_the_true_rewards(model, bar):
    """Root mean squared error on new contexts; a constant has 0.27."""
    x, a, r, _ = world(6000)
    fresh, _, _, q = world(2000, seed=1)
    found = model.fit(x, a, r).predict(fresh)
    assert (found - q).square().mean().sqrt().item() < bar


def test_ridge_without_penalty_is_least_squares_per_action():
    x, a, r, _ = world(500)
    found = Ridge(0.0, 0.0).fit(x, a, r).predict(x[:5])
    for k in range(A):
        rows = a == k
        exact = LinearRegression().fit(x[rows].numpy(), r[rows].numpy())
        np.testing.assert_allclose(found[:, k], exact.predict(x[:5].numpy()), atol=1e-9)


def test_weights_count_rows():
    x, a, r, _ = world(300)
    twice = torch.arange(300) < 100
    weight = 1.0 + twice.double()
    repeated = torch.cat((torch.arange(300), torch.arange(100)))
    model = Sklearn(LinearRegression(), interactions=True)
    ours = model.fit(x, a, r, weight).predict(x[:4])
    exact = model.fit(x[repeated], a[repeated], r[repeated]).predict(x[:4])
    torch.testing.assert_close(ours, exact)
    plain = Ridge(0.0, 0.0)
    torch.testing.assert_close(
        plain.fit(x, a, r, weight).predict(x[:4]),
        plain.fit(x[repeated], a[repeated], r[repeated]).predict(x[:4]),
    )


def test_an_action_that_was_never_logged_gets_the_shared_model():
    x, a, r, _ = world(600)
    fitted = Ridge().fit(x, a, r, n_actions=A + 1).predict(x)
    assert fitted.shape == (600, A + 1)
    assert (fitted[:, A].mean() - r.mean()).abs().item() < 0.02


def query(n: int) -> Query:
    x, a, r, _ = world(n)
    third = torch.full((n,), 1 / 3, dtype=torch.float64)
    target = torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.int64), A).double()
    return Query(action=a, reward=r, propensity=third, target=target, context=x)


def test_out_of_fold_predictions_never_saw_their_row():
    """Changing a row's reward changes no prediction of its own fold."""
    asked = query(200)
    before = cross_fitted(Ridge(), asked, folds=4, seed=1).column
    changed = asked.reward.clone()
    changed[17] += 100.0
    after = cross_fitted(Ridge(), replace(asked, reward=changed), folds=4, seed=1)
    fold = fold_of(200, 4, seed=1)
    torch.testing.assert_close(after.column[fold == fold[17]], before[fold == fold[17]])
    assert (after.column[fold != fold[17]] - before[fold != fold[17]]).abs().max() > 0.1


def test_units_share_a_fold_and_folds_are_balanced():
    unit = torch.arange(120) // 3
    fold = fold_of(120, 5, unit)
    assert (fold.view(40, 3) == fold.view(40, 3)[:, :1]).all()
    assert torch.bincount(fold).tolist() == [24] * 5
    with pytest.raises(InputError, match="as many units"):
        fold_of(9, 5, torch.arange(9) // 3)


def test_mrdr_ignores_actions_that_the_target_does_not_take():
    """The target always takes action 0, so rewards of other actions must not move its model."""
    asked = query(400)
    model = Reweighted(mrdr_weight(), Ridge(1e-6, 1e-6))
    before = model.learn(asked)(asked)[:, 0]
    reward = torch.where(asked.action == 0, asked.reward, asked.reward + 50.0)
    after = model.learn(replace(asked, reward=reward))(asked)[:, 0]
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


def test_a_classifier_refuses_graded_rewards():
    x, a, _, q = world(300)
    with pytest.raises(InputError, match="two values"):
        Logistic().fit(x, a, q[:, 0])
