"""Periodic plans: the bound against a linear program, and schedules against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from surpass.objectives.periodic import best_rates, periodic, upper_envelope


def recovering(arms: int, seed: int, longest: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    top, speed = rng.uniform(0.2, 1, arms), rng.uniform(1, 12, arms)
    return top[:, None] * (1 - np.exp(-np.arange(1, longest + 1) / speed[:, None]))


@given(st.integers(0, 200), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_bound_is_the_linear_program(seed: int, pulls: int):
    r = recovering(6, seed, 12)
    n, d = r.shape
    rest = np.tile(np.arange(1, d + 1), (n, 1))
    each = np.kron(np.eye(n), np.arange(1, d + 1))  # each arm: sum_d d y_d <= 1
    rows = np.vstack((each, np.ones(n * d)))
    exact = linprog(-r.ravel(), A_ub=rows, b_ub=[1.0] * n + [pulls])
    assert rest.shape == r.shape
    assert best_rates(r, pulls)[0] == pytest.approx(-exact.fun, rel=1e-6)


def test_envelope_by_hand():
    assert upper_envelope(np.array([0.1, 1.0])) == [(0.0, 0.0, 0), (0.5, 0.5, 2), (1.0, 0.1, 1)]


@given(st.integers(0, 200), st.sampled_from([1, 3, 8]))
@settings(max_examples=15, deadline=None)
def test_schedule_keeps_its_limits_and_earns_what_it_says(seed: int, pulls: int):
    r = recovering(5 * pulls, seed)
    plan, bound = periodic(r, pulls), best_rates(r, pulls)[0]
    assert 0.4 * bound < plan.value <= bound + 1e-9
    cycle = int(np.lcm.reduce([d for d in plan.period if d])) * 2
    last, earned = {}, 0.0
    for t in range(min(cycle, 2000)):
        now = plan.pulled(t)
        assert len(now) <= pulls
        for i in now:
            if i in last:
                assert t - last[i] == plan.period[i]
            last[i] = t
    earned = sum(r[i, min(d, 30) - 1] / d for i, d in enumerate(plan.period) if d)
    assert earned == pytest.approx(plan.value)


def test_near_the_best_of_all_periods_on_a_small_problem():
    r = recovering(3, 4, 4)
    best = 0.0
    for periods in itertools.product(range(5), repeat=3):
        for offsets in itertools.product(*[range(max(d, 1)) for d in periods]):
            used = [
                sum(bool(d) and t % d == o for d, o in zip(periods, offsets, strict=True))
                for t in range(12)
            ]
            if max(used) <= 1:
                best = max(best, sum(r[i, d - 1] / d for i, d in enumerate(periods) if d))
    assert periodic(r, 1).value >= 0.6 * best
