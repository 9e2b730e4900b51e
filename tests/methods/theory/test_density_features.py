"""Occupancies from density features: exact ends, never too high, and spanners that span."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.methods.theory.density_features import covering, forc
from surpass.objectives.density_features import (
    Levels,
    barycentric_spanner,
    clipped_weights,
    mixture,
    regressed,
)
from surpass.tasks.low_rank_mdp import locked_problem, low_rank_problem


def policies(problem, n, seed):
    H, X, A, _ = problem.phi.shape
    return tuple(np.random.default_rng(seed).dirichlet(np.ones(A), size=(n, H, X)))


def test_a_mixture_is_found_and_what_no_density_holds_is_refused():
    rng = np.random.default_rng(0)
    mu = rng.dirichlet(np.full(20, 0.3), size=4)
    truth = np.array([0.5, 0.3, 0.2, 0.0]) @ mu
    seen = np.bincount(rng.choice(20, 100_000, p=truth), minlength=20).astype(float)
    assert np.abs(mixture(mu, seen) - truth).sum() < 0.02
    with pytest.raises(InputError, match="none of the density features"):
        mixture(np.array([[1.0, 0.0]]), np.array([3.0, 1.0]))


def test_weights_by_hand():
    found = clipped_weights(np.array([0.5, 4.0, 9.0]), np.array([3.0, 3.0, 0.5]), 5.0, 2.0)
    np.testing.assert_allclose(found, [1.0, 8.0, 2.5])


def test_the_regression_is_exact_where_weights_are():
    """Weights that are w(x') themselves, with w in the class."""
    rng = np.random.default_rng(0)
    mu = rng.dirichlet(np.full(12, 1.0), size=3)
    law, goal = np.full(3, 1 / 3) @ mu, np.array([0.7, 0.2, 0.1]) @ mu
    x2 = rng.integers(12, size=500)
    np.testing.assert_allclose(regressed(mu, law, x2, (goal / law)[x2], 0.0), goal, atol=1e-9)
    half = regressed(mu, law, x2, 3 * (goal / law)[x2], 0.0)
    assert half.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(2))
def test_with_many_rows_and_cover_it_is_the_occupancy(seed):
    problem = low_rank_problem(seed, states=20, actions=3, d=3, horizon=4)
    H, X, A, _ = problem.phi.shape
    targets = policies(problem, 5, seed)
    rng = np.random.default_rng(seed)
    log = Levels(problem.log(np.full((H, X, A), 1 / A), 40_000, rng), problem.mu, problem.d0)
    found = forc(targets).measure(log)
    truth = np.stack([problem.occupancy(p) for p in targets])
    assert np.abs(found - truth).sum(-1).max() < 0.05


def test_clipped_occupancies_are_below_the_true_ones():
    problem = low_rank_problem(0, states=20, actions=3, d=3, horizon=4)
    H, X, A, _ = problem.phi.shape
    behavior = np.full((H, X, A), 0.01)
    behavior[..., 0] = 0.98
    targets = policies(problem, 5, 1)
    log = Levels(problem.log(behavior, 40_000, np.random.default_rng(0)), problem.mu, problem.d0)
    found = forc(targets, 2.0, 2.0).measure(log)
    truth = np.stack([problem.occupancy(p) for p in targets])
    assert (found - truth).max() < 0.01
    assert found[:, -1].sum(-1).max() < 0.5 * truth[:, -1].sum(-1).min()


@given(st.integers(2, 5), st.integers(0, 500))
def test_all_vectors_are_small_combinations_of_the_spanner(d, seed):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(12, d)) @ rng.normal(size=(d, 7))
    chosen = barycentric_spanner(theta, 1.5)
    assert len(chosen) == d
    coefficients = np.linalg.lstsq(theta[chosen].T, theta.T, rcond=None)[0]
    np.testing.assert_allclose(theta[chosen].T @ coefficients, theta.T, atol=1e-6)
    assert np.abs(coefficients).max() <= 1.5 + 1e-6


def test_covering_data_serve_every_policy():
    problem = low_rank_problem(0, states=20, actions=3, d=3, horizon=4)
    targets = policies(problem, 8, 0)
    made = covering(problem, targets, 20_000, np.random.default_rng(0))
    assert all(1 <= len(f) <= 3 for f in made.followed)
    found = forc(targets).measure(made.levels)
    truth = np.stack([problem.occupancy(p) for p in targets])
    assert np.abs(found - truth).sum(-1).max() < 0.1


def test_what_is_locked_is_reached_by_one_action_only():
    problem = locked_problem(0, states=20, actions=3, d=4, horizon=4)
    H, X, A, _ = problem.phi.shape
    np.testing.assert_allclose(problem.P.sum(-1), 1)
    always = np.zeros((H, X, A))
    always[..., -1] = 1
    assert problem.occupancy(always)[-1, 15:].sum() == pytest.approx(0.9**4)
    assert problem.occupancy(1 - always - np.eye(A)[0])[-1, 15:].sum() == 0
