"""Budgets of help and of rollouts: brute force over all plans."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.objectives.allocation import allocate, mixed_groups
from surpass.objectives.budgets import priced, within_budget


def chain():
    """States 0, 1 and the end 2: alone each is passed with 0.5 and 0.8, with help with 0.9; passing
    state 1 is the success."""
    P = torch.zeros(3, 2, 3, dtype=torch.float64)
    P[0, 0, 1], P[0, 1, 1] = 0.5, 0.9
    reward = torch.zeros(3, 2, dtype=torch.float64)
    reward[1] = torch.tensor([0.8, 0.9])
    return P, reward, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def value(plan, P, reward):
    """Success and calls of asking in state 0 and in state 1, by hand."""
    first, second = plan
    pass_first = 0.9 if first else 0.5
    return pass_first * (0.9 if second else 0.8), first + pass_first * second


def test_a_price_buys_what_it_is_worth():
    P, reward, start = chain()
    for price in (0.0, 0.05, 0.12, 0.3, 0.5):
        policy, won, used = priced(P, reward, price, 2)
        plans = {p: value(p, P, reward) for p in product((0, 1), repeat=2)}
        best = max(plans, key=lambda p, plans=plans, c=price: plans[p][0] - c * plans[p][1])
        assert (float(start @ won), float(start @ used)) == pytest.approx(value(best, P, reward))
        assert int(policy[0, 0, 1]) == best[0]


@pytest.mark.parametrize("budget", [0.0, 0.4, 1.0, 1.5, 1.9, 3.0])
def test_a_budget_is_met_exactly_by_the_best_mixture(budget):
    P, reward, start = chain()
    plan = within_budget(P, reward, start, budget, 2)
    points = [value(p, P, reward) for p in product((0, 1), repeat=2)]
    best = max(
        (1 - t) * a[0] + t * b[0]
        for a in points for b in points if a[1] <= budget
        for t in [min(1.0, max(0.0, (budget - a[1]) / (b[1] - a[1]))) if b[1] > a[1] else 0.0]
    )  # fmt: skip
    assert plan.success == pytest.approx(best, abs=1e-6)
    assert plan.usage == pytest.approx(min(budget, 1.9), abs=1e-6)
    with pytest.raises(InputError, match="not negative"):
        within_budget(P, reward, start, -1, 2)


def test_rollouts_go_where_they_make_mixed_groups():
    p = np.array([0.5, 0.1, 0.98])
    plans = [c for c in product(range(2, 9), repeat=3) if sum(c) == 12]
    best = max(mixed_groups(p, np.array(c)) for c in plans)
    found = allocate(p, 12, most=8)
    assert found.sum() == 12 and mixed_groups(p, found) == pytest.approx(best)
    assert mixed_groups(np.array([0.5]), np.array([2])) == pytest.approx(0.5)
    assert allocate(p, 100, most=5).tolist() == [5, 5, 5]
