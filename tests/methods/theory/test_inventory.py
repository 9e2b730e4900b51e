"""Inventory: dynamics by hand, base stock's known optimum, and learning through the dynamics."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm

from surpass.errors import InputError
from surpass.methods.theory.inventory import Hindsight, hdpo
from surpass.policies.ordering import GraphOrders, StoreOrders
from surpass.tasks.inventory import (
    OneStore,
    Warehouse,
    base_stock,
    correlated_demand,
    poisson_demand,
)


def test_orders_arrive_after_the_lead_time_and_cost_by_hand():
    demand = torch.tensor([[1.0, 2.0, 4.0]])

    def constant(pipe):
        return torch.full((len(pipe),), 3.0)

    # lead 2: on hand 0, 0, 3 before demand; backlog 1, 3, then 3 - 3 - 4 = -4
    store = OneStore(2, shortage=9.0, holding=1.0)
    assert float(store.cost(constant, demand)) == pytest.approx(9 * (1 + 3 + 4) / 3)
    # lost sales: on hand 0, 0, 3, nothing waits
    lost = OneStore(2, 9.0, 1.0, backlogged=False)
    assert float(lost.cost(constant, demand)) == pytest.approx(9 * (1 + 2 + 1) / 3)
    with pytest.raises(InputError, match="lead time"):
        OneStore(0)


def test_the_best_base_stock_is_the_newsvendor_quantile():
    g = torch.Generator().manual_seed(0)
    demand = 5 + 1.6 * torch.randn(3000, 40, generator=g)
    store = OneStore(4)
    levels = torch.arange(24.0, 34.0, 0.5)
    costs = [float(store.cost(base_stock(float(s)), demand, skip=10).mean()) for s in levels]
    best = float(levels[int(torch.tensor(costs).argmin())])
    wanted = 25 + 1.6 * 5**0.5 * norm.ppf(0.9)  # demand over lead + 1 periods
    assert best == pytest.approx(wanted, abs=0.5)
    assert float(base_stock(10.0, 3.0)(torch.tensor([[1.0, 2.0]]))) == 3.0


def test_a_policy_learned_in_hindsight_is_near_the_best_base_stock():
    store, demand = OneStore(1), poisson_demand(400, 14, seed=1)
    torch.manual_seed(0)

    def cost(policy, d):
        return store.cost(policy, d, skip=4)

    known = Hindsight(cost, demand[:300], demand[300:], StoreOrders(1))
    policy = hdpo(steps=60, batch=64, rate=1e-2).solve(known)
    fresh = poisson_demand(800, 14, seed=2)
    with torch.no_grad():
        ours = float(cost(policy, fresh).mean())
    best = min(float(cost(base_stock(float(s)), fresh).mean()) for s in range(10, 20))
    assert ours < 1.1 * best


def test_shipments_never_exceed_the_stock_and_graphs_fit_any_number_of_stores():
    ones = torch.ones(3)
    house = Warehouse(9 * ones, ones, 5 * ones, ones, lead=1, supply=1, storage=0.0)
    demand = torch.zeros(1, 3, 3)
    asked = iter([(0.0, 6.0), (10.0, 0.0), (10.0, 0.0)])

    def policy(pipe, stock):
        want, order = next(asked)
        return torch.full((1, 3), want), torch.tensor([order])

    # six arrive at the warehouse, two go to each store and stay there, at a cost of 1 a piece
    assert float(house.cost(policy, demand)) == pytest.approx((0 + 0 + 6) / 3 / 3)
    torch.manual_seed(0)
    net = GraphOrders(house.traits, house.mean, 1, 1)
    more = net.placed(house.traits.repeat(2, 1), house.mean.repeat(2))
    pipe, stock = torch.rand(2, 3, 1), torch.rand(2, 1)
    wanted, order = net(pipe, stock)
    twice, double = more(pipe.repeat(1, 2, 1), 2 * stock)
    assert torch.allclose(twice, wanted.repeat(1, 2), atol=1e-5)
    assert torch.allclose(double, 2 * order, atol=1e-4)
    d = correlated_demand(4000, 1, 5 * ones, ones, 0.5, seed=0)[:, 0]
    assert float(torch.corrcoef(d.T)[0, 1]) == pytest.approx(0.5, abs=0.05)
