"""Estimates of adversarial losses: bounds and means, and leaders against their conditions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.methods.theory.adversaries import (
    adversarial_linear_q,
    adversarial_log_barrier,
    adversarial_uniform,
)
from surpass.objectives.linear_losses import (
    dilated_bonus,
    estimated_loss,
    exponential_weights,
    inverse_covariance,
    log_barrier,
    magnitude_reduced,
    projections,
)
from surpass.tasks.adversary import AdversaryPlay, switching, visits
from surpass.training.replan import replan


def peaked(gamma=0.01, H=3):
    """Eight actions in four dimensions, of which one is nearly always taken."""
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(1, 8, 4))
    phi /= np.linalg.norm(phi, axis=-1, keepdims=True)
    pi = np.full((1, 8), 0.01)
    pi[0, 0] = 0.93
    return phi, pi, inverse_covariance(phi, pi, gamma), H


def test_removing_the_negative_part_changes_no_mean_and_bounds_the_least():
    phi, pi, inverse, H = peaked()
    x = projections(phi, inverse, phi[0])[0]  # [a, seen]
    expected = (np.minimum(x, 0.0) * pi[0]).sum(-1)
    plain = np.stack([estimated_loss(x[None, :, b], H)[0] for b in range(8)])
    less = np.stack([magnitude_reduced(x[None, :, b], H, expected[None], H)[0] for b in range(8)])
    np.testing.assert_allclose(pi[0] @ plain, pi[0] @ less, atol=1e-12)
    assert less.min() >= -H / np.sqrt(0.01) and plain.min() < 2 * less.min()


def test_the_estimate_is_the_loss_where_nothing_is_regularized():
    rng = np.random.default_rng(1)
    phi, pi, _, _ = peaked()
    theta = rng.normal(size=4)
    inverse = inverse_covariance(phi, pi, 0.0)
    mean = sum(
        pi[0, b] * estimated_loss(projections(phi, inverse, phi[0, b]), phi[0, b] @ theta)
        for b in range(8)
    )
    np.testing.assert_allclose(mean[0], phi[0] @ theta, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8), st.floats(1e-4, 1.0))
def test_the_barrier_meets_its_condition(total, eta):
    """eta L_a - 1 / p_a is the same for all actions."""
    x = np.array(total)
    p = log_barrier(x, eta)
    assert p.sum() == pytest.approx(1.0) and (p > 0).all()
    slack = eta * x - 1.0 / p
    assert np.ptp(slack) <= 1e-6 * max(1.0, np.abs(slack).max())


def test_leaders_by_hand():
    two = np.array([0.0, 1.0])
    np.testing.assert_allclose(exponential_weights(two, np.log(3.0)), [0.75, 0.25])
    # 1 / lam + 1 / (lam + 1.5) = 1 at lam = (0.5 + sqrt(6.25)) / 2 = 1.5
    np.testing.assert_allclose(log_barrier(two, 1.5), [2 / 3, 1 / 3], atol=1e-9)


def test_the_bonus_by_hand():
    """Two steps, one state, two actions taken alike: the last step pays 0.1 (w + 1.5), the first
    0.1 (w + 1.5) + 1.5 times the mean of the last, 0.3."""
    widths = np.broadcast_to([1.0, 2.0], (2, 1, 2)).copy()
    found = dilated_bonus(widths, np.ones((2, 1, 2, 1)), np.full((2, 1, 2), 0.5), 0.1)
    np.testing.assert_allclose(found[1, 0], [0.25, 0.35])
    np.testing.assert_allclose(found[0, 0], [0.25 + 0.45, 0.35 + 0.45])


def test_visits_sum_to_one_at_each_step():
    problem = switching(0)
    met = visits(problem.P, np.full((3, 4, 4), 0.25))
    np.testing.assert_allclose(met.sum((1, 2)), 1.0)


@pytest.mark.parametrize(
    ("recipe", "how"),
    [
        (adversarial_linear_q, {"beta": 1e-3}),
        (adversarial_log_barrier, {"beta": 1e-3}),
        (adversarial_uniform, {"explore": 0.02}),
    ],
)
def test_regret_against_fixed_losses_stays_far_below_that_of_chance(recipe, how):
    problem = switching(3, blocks=1)
    play = AdversaryPlay(problem)
    replan(recipe(problem.P, problem.phi, eta=0.3, gamma=0.01, episodes=1500, **how), play, seed=0)
    chance = problem.worth(np.full((3, 4, 4), 0.25), problem.loss(0)) - problem.best(1)
    late = np.mean(play.expected[-300:]) - problem.best(1)
    assert late < 0.4 * chance


def test_bad_input():
    with pytest.raises(InputError, match="features"):
        adversarial_linear_q(np.ones((1, 1, 2, 1)), np.ones((2, 1, 2, 3)))
