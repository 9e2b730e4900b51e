"""Q-values from anchor rows and columns: exact where the rank is, counted, and on coarser nets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.methods.theory.low_rank import low_rank_q
from surpass.objectives.completion import from_anchors
from surpass.tasks.generative_model import GenerativeModel, grid_pendulum, random_model
from surpass.tasks.tabular import TabularMDP


@given(st.integers(1, 4), st.integers(0, 1000))
def test_a_matrix_of_the_rank_is_found_exactly(rank, seed):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(12, rank)) @ rng.normal(size=(rank, 9))
    row, column = rng.choice(12, rank + 2, replace=False), rng.choice(9, rank + 2, replace=False)
    block = q[np.ix_(row, column)]
    found = from_anchors(q[:, column], q[row], block, rank)
    weakest = np.linalg.svd(block, compute_uv=False)[rank - 1]
    assert np.abs(found - q).max() < 1e-10 * (1 + 1 / weakest) ** 2


def test_a_rank_below_one_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        from_anchors(np.ones((3, 1)), np.ones((1, 3)), np.ones((1, 1)), 0)


def test_exact_answers_are_those_of_the_tables():
    model = random_model(7, 3, seed=1)
    P = np.zeros((7, 3, 7))
    for k in range(5):
        np.add.at(P, (*np.indices((7, 3)), model.following[..., k]), model.probability[..., k])
    mdp = TabularMDP(P, model.r, np.full(7, 1 / 7), 0.9)
    found, truth = model.solve(), mdp.solve()
    np.testing.assert_allclose(found, truth.q, atol=1e-8)
    np.testing.assert_allclose(model.value(found.argmax(1)), truth.v, atol=1e-8)


def test_next_states_come_as_often_as_they_should():
    model = random_model(4, 2, branches=3, seed=0)
    rng = np.random.default_rng(0)
    drawn = model.sample(np.zeros(1, int), np.ones(1, int), 40_000, rng)
    share = np.bincount(drawn[0], minlength=4) / 40_000
    truth = np.bincount(model.following[0, 1], model.probability[0, 1], minlength=4)
    assert np.abs(share - truth).max() < 0.01 and model.calls == 40_000


def test_without_anchors_and_noise_it_is_value_iteration():
    model = grid_pendulum(7, 7, 5, noise=0.0, gamma=0.5)
    q = low_rank_q(anchors=0, rounds=40, samples=1).solve(model)
    np.testing.assert_allclose(q, model.solve(), atol=1e-9)
    assert model.calls == 40 * 49 * 5


def test_a_problem_of_rank_two_needs_rows_and_columns_only():
    """Rewards f(s) g(a), and a next state that does not depend on the pair: Q = f g' + constant."""
    rng = np.random.default_rng(0)
    r = rng.random((30, 1)) * rng.random((1, 20))
    model = GenerativeModel(np.zeros((30, 20, 1), int), np.ones(1), r, 0.5)
    q = low_rank_q(anchors=4, rank=2, rounds=40, samples=1).solve(model)
    np.testing.assert_allclose(q, model.solve(), atol=1e-6)
    assert model.calls == 40 * (4 * 30 + 4 * 20 - 16)


def test_coarse_nets_first_cost_less_and_end_the_same():
    fine, coarse = (grid_pendulum(9, 9, 6, noise=0.0, gamma=0.5) for _ in range(2))
    every = low_rank_q(anchors=0, rounds=30, samples=1).solve(fine)
    later = low_rank_q(anchors=0, rounds=30, samples=1, nets=(4, 2, 1)).solve(coarse)
    np.testing.assert_allclose(later, every, atol=1e-6)
    assert coarse.calls < fine.calls
    points, nearest = fine.net(4)
    assert len(points) == 9 and set(nearest) == set(range(9)) and nearest[0] == 0
    with pytest.raises(InputError, match="no grid"):
        random_model(5, 2).net(2)
