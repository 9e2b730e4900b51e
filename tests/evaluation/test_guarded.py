from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from surpass.evaluation.guarded import (
    ScoreHistogram,
    guarded_bounds,
    guarded_low,
    guarded_p,
    pooled_guard,
)


def _t_test(x):
    return stats.ttest_1samp(x, 0.0, alternative="greater").pvalue


@pytest.mark.parametrize(("n", "k"), [(50, 8), (200, 30), (500, 20), (1000, 100), (1000, 3)])
def test_two_valued_scores_give_clopper_pearson(n, k):
    x = np.r_[np.ones(k), np.zeros(n - k)]
    found = guarded_bounds(x, 0.0, 1.0)
    assert found.low == pytest.approx(stats.beta.ppf(0.05, k, n - k + 1), abs=1e-4)
    assert found.high == pytest.approx(stats.beta.ppf(0.95, k + 1, n - k), abs=3e-4)
    margin = 0.6 * k / n
    exact = stats.binom.sf(k - 1, n, margin)
    assert guarded_p(x - margin, -margin) == pytest.approx(exact, abs=2e-4)


def test_p_is_the_probability_of_a_random_weighting():
    """The saddlepoint against simulation of P(sum E_i x_i <= 0)."""
    rng = np.random.default_rng(0)
    x = rng.exponential(1.0, 30) - 0.6
    guard = -0.6
    weights = rng.exponential(1.0, (400_000, 31))
    simulated = (weights @ np.r_[x, guard] <= 0).mean()
    assert guarded_p(x, guard) == pytest.approx(simulated, abs=0.002)


def test_large_samples_agree_with_the_t_test():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.0, 1.0, 40_000) + 0.005
    assert guarded_p(x, -1.0) == pytest.approx(_t_test(x), rel=0.03)


def test_a_guard_that_was_not_seen_costs():
    x = np.r_[np.full(200, 0.01), np.full(60, 0.02)]
    assert _t_test(x) < 1e-6
    assert guarded_p(x, -10.0) == 1.0  # one such loss would outweigh all that was won
    for guard in (-1.0, -0.8, -0.5):  # with one negative point, P = prod |L| / (|L| + x_i)
        assert guarded_p(x, guard) == pytest.approx(np.prod(guard / (guard - x)), rel=0.02)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_weights_count_as_repetitions(seed, times):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 1.0, 40).clip(-2, 4)
    weight = rng.integers(1, times + 1, 40)
    repeated = np.repeat(x, weight)
    assert guarded_p(x, -2.0, weight) == pytest.approx(guarded_p(repeated, -2.0), abs=1e-9)
    low = guarded_low(x, lambda m: -2.0 - m, weight=weight)
    assert low == pytest.approx(guarded_low(repeated, lambda m: -2.0 - m), abs=1e-7)


@given(st.integers(0, 10_000), st.floats(0.01, 0.2))
@settings(max_examples=25, deadline=None)
def test_the_bound_is_where_p_crosses_the_level(seed, level):
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.5, 2.0, 60)
    low = guarded_bounds(scores, 0.0, 1.0, level).low
    assert guarded_p(scores - low, -low) == pytest.approx(level, rel=1e-4)
    assert guarded_p(scores - low - 0.01, -low - 0.01) > level


@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
@settings(max_examples=25, deadline=None)
def test_p_grows_with_the_margin_and_ignores_the_unit_of_measure(seed, unit):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.2, 1.0, 80).clip(-3, 3)
    p = [guarded_p(scores - m, -3 - m) for m in np.linspace(-0.6, 0.1, 12)]
    assert all(a <= b + 1e-12 for a, b in pairwise(p))
    assert guarded_p(scores * unit, -3 * unit) == pytest.approx(guarded_p(scores, -3.0), abs=1e-9)


def test_bounds_mirror():
    x = np.random.default_rng(2).beta(2, 5, 100)
    up, down = guarded_bounds(x, 0.0, 1.0), guarded_bounds(-x, -1.0, 0.0)
    assert (up.low, up.high) == pytest.approx((-down.high, -down.low), abs=1e-9)


def test_edge_cases():
    assert guarded_p(np.zeros(10), 0.0) == 1.0
    assert guarded_p(np.full(10, 0.5), 0.0) == 0.0
    assert guarded_p(np.full(10, -0.5), -1.0) == 1.0
    small = np.r_[np.full(50, 0.1), np.full(50, -0.1), 0.9]  # a total just above 0: z below 0.2
    assert guarded_p(small, -0.89) >= 0.3
    assert guarded_bounds(np.full(100, 0.3), 0.3, 0.3).low == pytest.approx(0.3)
    with pytest.raises(ValueError, match="below its lower limit"):
        guarded_p(np.array([-2.0, 1.0]), -1.0)
    with pytest.raises(ValueError, match="finite"):
        guarded_p(np.array([np.nan, 1.0]), -1.0)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_histogram_is_conservative_and_close(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.05, 1.0, 2000).clip(-4, 6)
    exact, tight = guarded_bounds(x, -4.0, 6.0), ScoreHistogram(-4.0, 6.0)
    coarse = ScoreHistogram(-4.0, 6.0, bins=60)
    for part in np.array_split(x, 7):
        tight.add(part)
        coarse.add(part)
    width = exact.high - exact.low
    assert tight.bounds().low == pytest.approx(exact.low, abs=1e-6 * width)
    assert exact.low - 0.02 * width < coarse.bounds().low <= exact.low + 1e-9
    assert exact.high - 1e-9 <= coarse.bounds().high < exact.high + 0.02 * width
    assert coarse.bounds().mean == pytest.approx(x.mean(), abs=1e-12)
    assert tight.p() == pytest.approx(guarded_p(x, -4.0), abs=1e-6)


def test_a_histogram_refuses_scores_beyond_its_limits():
    histogram = ScoreHistogram(-1.0, 1.0)
    with pytest.raises(ValueError, match="outside the limits"):
        histogram.add(np.array([1.5]))
    with pytest.raises(ValueError, match="finite limits"):
        ScoreHistogram(-np.inf, 1.0)


def test_pooled_stages_take_the_worst_guard():
    guard = pooled_guard([(-2.0, 1.0), (-3.0, 2.0)], largest_unit=3)
    assert guard(0.0) == pytest.approx(-6.0)
    assert guard(1.0) == pytest.approx(-9.0)
    # below every limit the worst unit is one of a single row: (-3 + 4) / 2
    assert guard(-4.0) == pytest.approx(0.5)
    assert guarded_p(np.array([0.5, 6.0]), guard(-4.0)) == 0.0
