"""Portfolios against a short independent reference; distributions against closed forms."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.evaluation.portfolio import accuracy, compare, cvar, portfolio, return_distribution

number = st.floats(-10, 10, allow_nan=False).map(lambda v: round(v, 3))


@given(st.lists(st.tuples(number, number), min_size=3, max_size=9, unique_by=lambda p: p[0]))
def test_portfolio_is_what_a_few_lines_say(pairs):
    guess, true = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    for k in range(2, len(pairs) + 1):
        found = portfolio(guess, true, 0.5, k)
        top = [v for _, v in sorted(pairs, key=lambda p: -p[0])[:k]]
        spread = statistics.stdev(top)
        if spread > 0:
            assert found.sharpe == pytest.approx(min(100, max(0, max(top) - 0.5) / spread))
        assert found.best == max(top) and found.worst == min(top)
        assert found.violations == pytest.approx(sum(v < 0.5 for v in top) / k)


def test_safer_choice_scores_higher_where_errors_are_the_same_multiset():
    true = torch.arange(1.0, 11.0, dtype=torch.float64)
    logging = 5.0
    low, high = true.clone(), true.clone()
    low[8], low[9] = true[8] - 4.5, true[9] - 4.5  # underestimates good policies
    high[0], high[1] = true[0] + 4.5, true[1] + 4.5  # overestimates bad ones
    mse = [accuracy(guess, true, logging)["mse"] for guess in (low, high)]
    assert mse == [pytest.approx(2 * 4.5**2 / 10)] * 2
    safe, risky = (portfolio(guess, true, logging, 5) for guess in (low, high))
    assert safe.sharpe > 1.4 * risky.sharpe and safe.regret == risky.regret == 0.0
    assert (safe.violations, risky.violations) == (0.0, 0.2)


def test_conventions():
    true = torch.tensor([1.0, 2.0, 2.0])
    assert math.isnan(portfolio(true, true, 0.0, 1).sharpe)
    assert portfolio(true, true, 0.0, 2).sharpe == 100.0  # no spread, a gain
    assert portfolio(true, true, 3.0, 2).sharpe == 0.0  # no spread, no gain
    with pytest.raises(InputError, match="k lies"):
        portfolio(true, true, 0.0, 4)
    table = compare({"a": true, "b": -true}, true, 1.5)
    assert table["a"]["rank"] == 1.0 and len(table["b"]["portfolios"]) == 2  # type: ignore[arg-type]
    assert table["b"]["type_2"] == 1.0


def test_distribution_of_the_target_from_weights():
    returns = torch.tensor([3.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    sorted_, F = return_distribution(returns, weight)
    assert sorted_.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert F.tolist() == [0.5, 0.5, 0.75, 1.0]
    assert cvar(sorted_, F, 0.5) == 1.0
    assert cvar(sorted_, F, 0.75) == pytest.approx((2 * 1 + 3) / 3)
    assert cvar(sorted_, F, 1.0) == pytest.approx(float((weight * returns).sum() / 4))
    with pytest.raises(InputError, match="alpha"):
        cvar(sorted_, F, 0.0)
