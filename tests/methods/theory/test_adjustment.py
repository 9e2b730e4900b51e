"""Costs of change: exact against brute force, free of charge without them, and calibrated."""

from itertools import product

import numpy as np
import pytest

from surpass.errors import InputError
from surpass.methods.theory.adjustment import calibrated, planned, policy_adjustment_costs, worth
from surpass.objectives.switching import adjustment, switching_backup
from surpass.tasks.fishery import Fishery, Harvested


def test_costs_by_hand():
    level = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(adjustment("linear", 2.0, level)[0], [0, 2, 6])
    np.testing.assert_allclose(adjustment("quadratic", 2.0, level)[2], [18, 8, 0])
    np.testing.assert_allclose(adjustment("fixed", 2.0, level)[1], [2, 0, 2])
    with pytest.raises(InputError, match="not negative"):
        adjustment("linear", -1.0, level)
    with pytest.raises(InputError, match="one of none, linear"):
        adjustment("cubic", 1.0, level)


def test_two_steps_against_every_plan():
    """Two stocks and two quotas: all 2^(2 + 4) rules for two steps, tried one by one."""
    model = Fishery(points=2)
    plan = planned("linear", 0.7, horizon=2, discount=0.1)(model)
    cost = adjustment("linear", 0.7, model.quotas)
    for s, before in product(range(2), range(2)):
        found = []
        for now, *later in product(range(2), repeat=3):
            value = model.profit[s, now] - cost[before, now]
            for s2 in range(2):
                then = model.profit[s2, later[s2]] - cost[now, later[s2]]
                value += 0.9 * model.P[s, now, s2] * then
            found.append(value)
        assert plan.value[s, before] == pytest.approx(max(found))


@pytest.mark.parametrize("form", ["linear", "quadratic", "fixed"])
def test_a_plan_is_worth_what_it_says_and_none_is_worth_more(form):
    model = Fishery(points=12)
    plan, free = planned(form, 1.5)(model), planned("none", 0.0)(model)
    np.testing.assert_allclose(worth(model, plan.policy, form, 1.5), plan.value)
    assert (worth(model, free.policy, form, 1.5) <= plan.value + 1e-9).all()
    assert (worth(model, plan.policy) <= free.value + 1e-9).all()
    stale = policy_adjustment_costs(form, 1.5, stale=True).solve(model)
    mended = worth(model, stale.policy, form, 1.5)
    assert (mended <= plan.value + 1e-9).all() and (mended < plan.value - 1e-3).any()


def test_without_a_cost_what_was_done_last_does_not_matter():
    plan = planned("none", 0.0)(Fishery(points=10))
    assert (plan.policy == plan.policy[..., :1]).all()
    frozen = planned("fixed", 1e6)(Fishery(points=10)).policy
    assert (frozen == np.arange(10)).all()


def test_a_cost_is_scaled_to_the_fall():
    model = Fishery(points=20)
    at, free = model.nearest(model.capacity), planned("none", 0.0)(model)
    c = calibrated(model, "quadratic", 0.2)
    fall = 1 - planned("quadratic", c)(model).value[at].max() / free.value[at].max()
    assert fall == pytest.approx(0.2, abs=1e-3)
    with pytest.raises(InputError, match="lowers the optimum"):
        calibrated(model, "fixed", 0.9999)


def test_the_stock_goes_where_it_should():
    model = Fishery(points=40, spread=0.05)
    np.testing.assert_allclose(model.P.sum(-1), 1)
    s, h = model.nearest(8.0), int(np.abs(model.quotas - 1.0).argmin())
    left = model.stocks[s] - model.quotas[h]
    assert model.P[s, h] @ model.stocks == pytest.approx(1.5 * left / (1 + 0.05 * left), rel=0.02)
    none = np.zeros((200, 40, 40), int)
    assert model.simulate(none, s, 0, 20, np.random.default_rng(0)).stock[:, -50:].mean() == (
        pytest.approx(10, rel=0.1))  # fmt: skip


def test_figures_of_quotas_by_hand():
    seen = Harvested(np.ones((2, 4)), np.array([[0.0, 1.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]]))
    assert seen.variance == pytest.approx(0.125)
    assert seen.autocorrelation == pytest.approx(-0.75)


def test_the_backup_goes_on_with_the_new_level():
    reward, P = np.zeros((1, 2)), np.ones((1, 2, 1))
    q = switching_backup(reward, P, np.zeros((2, 2)), np.array([[1.0, 5.0]]), 0.5)
    np.testing.assert_allclose(q[0], [[0.5, 2.5], [0.5, 2.5]])
