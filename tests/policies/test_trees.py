"""Trees as tensors against scikit-learn's own predictions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from surpass.errors import InputError
from surpass.policies.trees import TreeValues

N, D, A = 3_000, 5, 7


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)).round(1)  # ties at thresholds
    action = rng.integers(0, A - 1, N)  # the last action is never logged
    reward = np.sin(2 * x[:, 0]) * (action % 3 == 1) + 0.3 * action + rng.normal(size=N)
    return x, action, reward


def expected(model, x: np.ndarray, call: str = "predict") -> np.ndarray:
    columns = []
    for a in range(A):
        joint = np.column_stack([x, np.full(len(x), a)])
        out = getattr(model, call)(joint)
        columns.append(out[:, 1] if out.ndim == 2 else out)
    return np.stack(columns, 1)


@pytest.mark.parametrize("categorical", [[D], None])
def test_joint_regression_equals_sklearn(rows, categorical):
    x, action, reward = rows
    model = HistGradientBoostingRegressor(
        categorical_features=categorical, max_iter=40, random_state=0
    ).fit(np.column_stack([x, action]), reward)
    values = TreeValues.of_joint(model, D, A)
    ours = values(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, expected(model, x), atol=1e-10)


def test_joint_classifier_equals_sklearn_probabilities(rows):
    x, action, reward = rows
    model = HistGradientBoostingClassifier(
        categorical_features=[D], max_iter=30, early_stopping=True, random_state=0
    ).fit(np.column_stack([x, action]), reward > 0.5)
    values = TreeValues.of_joint(model, D, A, link="sigmoid", low=-1.0, high=3.0)
    ours = values(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, -1.0 + 4.0 * expected(model, x, "predict_proba"), atol=1e-10)


def test_a_model_per_action_equals_sklearn_also_with_unequal_numbers_of_trees(rows):
    x, action, reward = rows
    models = [
        HistGradientBoostingRegressor(max_iter=5 + 3 * a).fit(x[action == a], reward[action == a])
        for a in range(3)
    ]
    values = TreeValues.of_each(models, D)
    ours = values(torch.from_numpy(np.tile(x, (2, 1)))).numpy()  # more rows than one chunk
    theirs = np.tile(np.stack([m.predict(x) for m in models], 1), (2, 1))
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_equal_trees_are_stored_once(rows):
    x, _, reward = rows
    noise = np.zeros(N)  # the action says nothing: every action has the same trees
    model = HistGradientBoostingRegressor(categorical_features=[D], max_iter=4).fit(
        np.column_stack([x, noise]), reward
    )
    one, many = TreeValues.of_joint(model, D, 1), TreeValues.of_joint(model, D, A)
    assert (many.nodes, many.trees) == (one.nodes, one.trees)
    context = torch.from_numpy(x)
    torch.testing.assert_close(many(context)[:, 3], one(context)[:, 0])


def test_categorical_context_is_refused(rows):
    x, action, reward = rows
    cats = np.column_stack([action, x[:, 1:], action])
    model = HistGradientBoostingRegressor(categorical_features=[0], max_iter=2).fit(cats, reward)
    with pytest.raises(InputError, match="only the action"):
        TreeValues.of_joint(model, D, A)


def test_standardization_is_inside_and_the_last_answer_follows_its_rows(rows):
    x, action, reward = rows
    mean, spread = torch.from_numpy(x.mean(0)), torch.from_numpy(x.std(0))
    z = (x - x.mean(0)) / x.std(0)
    model = HistGradientBoostingRegressor(categorical_features=[D], max_iter=5).fit(
        np.column_stack([z, action]), reward
    )
    values = TreeValues.of_joint(model, D, A, mean, spread)
    context = torch.from_numpy(x.copy())
    np.testing.assert_allclose(values(context).numpy(), expected(model, z), atol=1e-10)
    assert values(context) is values(context)
    context += 1.0  # the same tensor with other numbers
    again = (x + 1.0 - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(values(context).numpy(), expected(model, again), atol=1e-10)
    np.testing.assert_allclose(
        pickle.loads(pickle.dumps(values))(context).numpy(), expected(model, again), atol=1e-10
    )
