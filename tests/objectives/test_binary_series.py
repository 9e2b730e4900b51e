"""Tests of binary series: by scipy, by enumeration, and their rates of false alarms."""

from __future__ import annotations

import warnings
from itertools import groupby, product

import numpy as np
import pytest
from scipy import stats

from surpass.methods.ope.decision_bias import binary_decision_bias
from surpass.objectives.binary_series import (
    battery,
    holm,
    longest_run_law,
    streak_slope,
    variance_ratio,
)
from surpass.policies.binary_series import alternating, ask_in_series, coin, gambler, tempered


def test_the_law_of_the_longest_run_by_enumeration():
    for n in (1, 4, 9):
        longest = [max(len(list(g)) for _, g in groupby(b)) for b in product((0, 1), repeat=n)]
        counted = np.bincount(longest, minlength=n + 1) / 2**n
        assert longest_run_law(n) == pytest.approx(counted.tolist())


def test_order_one_is_the_likelihood_ratio_of_the_transition_table():
    bits = ask_in_series(alternating(0.7), 20, 30, seed=1)
    before, now = bits[:, :-1].ravel(), bits[:, 1:].ravel()
    table = np.array([[((before == i) & (now == j)).sum() for j in (0, 1)] for i in (0, 1)])
    found = {t.name: t for t in battery(bits)}
    wanted = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    assert found["order 1"].p == pytest.approx(wanted.pvalue)
    share = table[:, 1] / table.sum(1)
    assert found["order 1"].value == pytest.approx(share[1] - share[0])
    assert found["rate"].p == pytest.approx(stats.binomtest(int(bits.sum()), 600).pvalue)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03], 0.05) == [True, False, False]
    assert holm([0.01, 0.02, 0.04], 0.05) == [True, True, True]
    assert holm([0.2, 0.3], 0.05) == [False, False]


def test_coins_pass_and_biases_are_named():
    flags = [any(t.flagged for t in battery(ask_in_series(coin(), 60, 40, k))) for k in range(60)]
    assert np.mean(flags) <= 0.12

    def flagged(teller):
        return {t.name for t in battery(ask_in_series(teller, 200, 50, 3)) if t.flagged}

    assert "rate" in flagged(coin(0.4)) and "order 1" not in flagged(coin(0.4))
    assert "order 1" in flagged(alternating(0.6)) and "rate" not in flagged(alternating(0.6))
    assert "streaks" in flagged(gambler())
    slope, error = streak_slope(ask_in_series(gambler(0.08), 400, 50, 5))
    p = 0.5 + 0.08 * np.arange(5)
    assert slope == pytest.approx(np.polyfit(range(5), np.log(p / (1 - p)), 1)[0], abs=4 * error)


def test_who_always_says_yes_is_biased_and_has_no_memory():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = {t.name: t for t in battery(np.ones((20, 50), dtype=np.int64))}
        assert np.isnan(variance_ratio(np.ones(8)))
    assert found["rate"].flagged and found["rate"].value == 1.0
    for name in ("order 1", "order 2"):
        assert (found[name].value, found[name].p) == (0.0, 1.0)
        assert not found[name].flagged


def test_variance_ratios_of_known_walks():
    x = np.random.default_rng(0).normal(size=100_000)
    assert variance_ratio(x) == pytest.approx(1.0, abs=0.03)
    turning = x[1:] - 0.5 * x[:-1]  # MA(1): var 1.25, autocovariance -0.5
    assert variance_ratio(turning) == pytest.approx(1 + 2 * 0.8 * (-0.5 / 1.25), abs=0.03)


def test_a_study_of_a_gambler_says_what_is_wrong():
    found = binary_decision_bias(100, 40, coins=5).measure(gambler())
    assert "streaks" in found.flagged and found.apart < 0.05
    assert found.variance_ratio < 0.9
    assert "streaks" not in {t.name for t in found.alone if t.flagged}
    assert "alternation differs" in str(found)
    hot, cold = (tempered(coin(0.3), t)(np.zeros((1, 0)))[0] for t in (2.0, 0.5))
    assert cold < 0.3 < hot < 0.5
