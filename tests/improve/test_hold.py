"""What HOLD advises: the power formula, and what exploration saves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from surpass.improve.hold import exploration_rows, promising_gain, rows_to_settle, settlement


def test_without_a_guard_the_rows_are_the_classic_power_formula():
    m = rows_to_settle(0.1, 1.0, 0.0)
    assert m == pytest.approx(((1.6449 + 0.84) / 0.1) ** 2, rel=1e-4)
    power = stats.norm.sf(1.6449 - 0.1 * np.sqrt(m))
    assert power == pytest.approx(0.80, abs=0.005)


def test_the_guard_solves_the_quadratic():
    g, s, guard = 0.2, 1.5, -3.0
    root = np.sqrt(rows_to_settle(g, s, guard))
    b = stats.norm.isf(0.05) + 0.84
    assert g * root**2 - b * s * root - abs(guard) == pytest.approx(0, abs=1e-9)


@given(st.floats(0.01, 1), st.floats(0.1, 3), st.floats(0, 10))
def test_more_rows_for_smaller_gains_more_noise_and_worse_guards(g: float, s: float, guard: float):
    m = rows_to_settle(g, s, -guard)
    assert rows_to_settle(g / 2, s, -guard) > m
    assert rows_to_settle(g, 2 * s, -guard) > m
    assert rows_to_settle(g, s, -guard - 1) > m


def test_a_gain_within_its_noise_is_not_promising():
    assert promising_gain(0.1, 1.0, 100) == 0.0  # t = 1
    assert promising_gain(0.2, 1.0, 100) == 0.2
    assert rows_to_settle(0.0, 1.0, 0.0) == float("inf")


def test_the_example_of_a_greedy_candidate_under_uniform_logging():
    """10 actions: variance 9 sigma^2 under uniform logging, 3.24 sigma^2 under the best
    exploration."""
    target = np.zeros((5, 10))
    target[:, 3] = 1
    reference = np.full((5, 10), 0.1)
    shares, best = exploration_rows(target, reference, np.ones((5, 10)), 9_000)
    assert shares[-1]["rows"] == pytest.approx(9_000 * 3.24 / 9)
    np.testing.assert_allclose(best[0, 3], 0.5)
    np.testing.assert_allclose(best[0, 0], 0.1 / 1.8)


def test_the_settlement_names_rows_or_says_there_is_no_candidate():
    promising = settlement(0.05, 1.0, -2.0, 2_000, 0.3, 0.05)
    assert promising.rows == pytest.approx(rows_to_settle(0.05, 1.0, -2.0) / 0.7)
    assert promising.rows_low is not None and promising.rows_low < promising.rows
    nothing = settlement(0.001, 1.0, -2.0, 2_000, 0.3, 0.05)
    assert nothing.sentence.startswith("No promising candidate")
    assert nothing.rows == pytest.approx(rows_to_settle(0.015, 1.0, -2.0) / 0.7)
