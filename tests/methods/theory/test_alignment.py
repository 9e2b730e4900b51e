"""What a class can see of its Bellman error: closed classes, the singular chain, two samples."""

import numpy as np
import pytest

from surpass.methods.theory.alignment import realizable_td
from surpass.objectives.alignment import alignment, concentrability, direct, fixed_point, moments
from surpass.tasks.linear_evaluation import LinearEvaluation, realizable, two_states


def one_hot(problem):
    S, A = problem.mu.shape
    return LinearEvaluation(problem.mdp, np.eye(S * A).reshape(S, A, -1), problem.mu, problem.pi)


@pytest.mark.parametrize("seed", range(4))
def test_a_closed_class_sees_every_error(seed):
    assert alignment(one_hot(realizable(seed)).moments()) == pytest.approx(1, abs=1e-8)
    assert alignment(realizable(seed).moments()) < 0.95


def test_the_chain_by_hand():
    """phi = 1, 2; Delta = 1 - 2 g, 2 - 2 g: A = m1 (1 - 2 g) + 4 m2 (1 - g)."""
    g, first = 0.9, 0.5
    seen = two_states(first, g).moments()
    delta = np.array([1 - 2 * g, 2 - 2 * g])
    a = first * delta[0] + 2 * (1 - first) * delta[1]
    m = first * delta[0] ** 2 + (1 - first) * delta[1] ** 2
    assert seen.a[0, 0] == pytest.approx(a) and seen.m[0, 0] == pytest.approx(m)
    assert alignment(seen) == pytest.approx(abs(a) / np.sqrt((first + 4 * (1 - first)) * m))
    # From state 1, one step there and then in state 2 for good: E[Delta] = (1 - g) phi(1).
    assert seen.goal[0] == pytest.approx(1 - g)
    assert concentrability(seen) == pytest.approx((1 - g) ** 2 / m)
    # With one feature there is one direction only.
    assert direct(seen) == pytest.approx(concentrability(seen) / alignment(seen) ** 2)


def test_what_the_log_never_shows_is_not_trusted():
    """Two pairs that end, one feature each, so that Delta = phi; the target takes either."""
    phi, goal = np.eye(2), np.array([0.5, 0.5])
    covered = moments(phi, phi, goal, np.array([0.75, 0.25]))
    assert concentrability(covered) == pytest.approx(0.25 / 0.75 + 0.25 / 0.25)
    blind = moments(phi, phi, goal, np.array([1.0, 0.0]))
    assert concentrability(blind) == np.inf and direct(blind) == np.inf
    found = realizable_td().measure(blind)
    assert found.bound == np.inf and "weakest: coverage" in str(found)


def test_where_no_fixed_point_exists_the_alignment_is_zero():
    singular = 4 * 0.1 / (3 - 2 * 0.9)
    assert alignment(two_states(singular).moments()) == pytest.approx(0, abs=1e-7)
    assert realizable_td(gamma=0.9).measure(two_states(singular).moments()).bound > 1e6


def test_the_fixed_point_of_many_rows_is_the_value():
    problem = realizable(3)
    rows = problem.sample((400_000,), np.random.default_rng(0))
    theta = fixed_point(rows.phi, rows.first, rows.reward)
    assert problem.start @ theta == pytest.approx(problem.truth, abs=0.05 * problem.truth)


def test_two_next_states_tell_what_one_does_not():
    problem = realizable(1)
    exact = alignment(problem.moments())
    rows = problem.sample((400_000,), np.random.default_rng(0))
    goal = problem.moments().goal
    twice = alignment(moments(rows.phi, rows.first, goal, second=rows.second))
    once = alignment(moments(rows.phi, rows.first, goal))
    assert twice == pytest.approx(exact, abs=0.02)
    assert once < exact - 0.05


def test_the_report_names_what_is_weakest():
    seen = two_states(4 * 0.1 / (3 - 2 * 0.9) + 0.01).moments()
    text = str(realizable_td(rows=2000, gamma=0.9).measure(seen))
    assert "weakest: the class" in text and "alignment 0.0" in text


@pytest.mark.parametrize("seed", range(6))
def test_the_worst_direction_bounds_the_one_that_matters(seed):
    seen = realizable(seed).moments()
    assert direct(seen) <= concentrability(seen) / alignment(seen) ** 2 * (1 + 1e-9)
