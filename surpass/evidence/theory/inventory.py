"""Evidence for learning in hindsight through known dynamics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.theory.inventory import Hindsight, hdpo, score_function
from surpass.policies.ordering import GraphOrders, PlainOrders, StoreOrders
from surpass.tasks.inventory import (
    OneStore,
    Warehouse,
    base_stock,
    correlated_demand,
    poisson_demand,
)

PERIODS, SKIP, STEPS, RATES = 30, 10, 200, (1e-3, 3e-3, 1e-2, 3e-2)


def _normal(n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (5 + 1.6 * torch.randn(n, PERIODS, generator=g)).clamp_min(0)


def _known(store: OneStore, demand: Tensor, seed: int) -> Hindsight:
    torch.manual_seed(seed)
    cut = len(demand) * 4 // 5
    return Hindsight(
        lambda p, d: store.cost(p, d, SKIP), demand[:cut], demand[cut:], StoreOrders(store.lead)
    )


@torch.no_grad()
def _best(store: OneStore, demand: Tensor, capped: bool) -> float:
    """The best base stock of a grid on these very traces; with a cap of orders where asked."""
    levels = torch.arange(5.0 * store.lead, 5.0 * store.lead + 16.0, 1.0)
    caps = [None] if not capped else [5.0, 5.5, 6.0, 7.0, 8.0, 10.0]
    return min(
        float(store.cost(base_stock(float(s), c), demand, SKIP).mean())
        for s in levels for c in caps
    )  # fmt: skip


@torch.no_grad()
def _cost(store: OneStore, policy: Any, demand: Tensor) -> float:
    return float(store.cost(policy, demand, SKIP).mean())


def _tuned(learn: Any, known: Hindsight) -> Any:
    """The policy of four step sizes that costs least on the held-out traces, by either method."""
    found = [learn(rate) for rate in RATES]
    with torch.no_grad():
        costs = [float(known.cost(p, known.held_out).mean()) for p in found]
    return found[costs.index(min(costs))]


def _house(stores: int, seed: int) -> Warehouse:
    g = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(stores, generator=g)

    mean = between(2.5, 7.5)
    return Warehouse(between(6.3, 11.7), between(0.7, 1.3), mean, mean * between(0.25, 0.5))


def _network(seed: int) -> tuple[float, float, float, float]:
    """Costs on fresh traces: the graph net and the plain one from 64 traces of five stores; the
    graph net moved to eight stores, and one trained there."""

    def traces(house: Warehouse, n: int, at: int) -> Tensor:
        return correlated_demand(n, PERIODS, house.mean, house.spread, seed=1000 * seed + at)

    def learned(house: Warehouse, net: Any, n: int) -> Any:
        known = Hindsight(
            lambda p, d: house.cost(p, d, SKIP), traces(house, n, 1), traces(house, 64, 2), net
        )
        return hdpo(STEPS, 64, seed=seed).solve(known)

    def judged(house: Warehouse, net: Any) -> float:
        with torch.no_grad():
            return float(house.cost(net, traces(house, 256, 3), SKIP).mean())

    five, eight = _house(5, seed), _house(8, seed + 500)
    torch.manual_seed(seed)
    graph = learned(five, GraphOrders(five.traits, five.mean, 2, 3), 64)
    plain = learned(five, PlainOrders(5, 2, 3, 2 * float(five.mean.sum())), 64)
    anew = learned(eight, GraphOrders(eight.traits, eight.mean, 2, 3), 64)
    moved = graph.placed(eight.traits, eight.mean)
    return judged(five, graph), judged(five, plain), judged(eight, moved), judged(eight, anew)


@evidence(
    "hdpo-inventory",
    claim="learned in hindsight, one store's policy costs at most 2 % more than the best base "
    "stock and REINFORCE's at least 5 % more than it; a graph policy learned on 64 traces "
    "costs at least 3 % less than a plain net and serves eight stores unchanged within 15 %",
    setting="one store with lead time 4 (normal demand, waiting) and 3 (Poisson, lost), 640 "
    "traces; a warehouse and five stores; traces of 30 periods, the first 10 not counted; 200 "
    "steps of Adam; one store by the best of four step sizes on held-out traces",
    baseline="the best base-stock level, chosen on the test traces",
    metric="cost a period, one store, unmet demand waits",
    bar=at_most(1.02, times=True),
    seeds=10,
    minutes=10,
    note="Open only against REINFORCE: tuned alike and after as many traces it costs 4.8 % more "
    "(3.2 to 6.5), and the bar is 5; the policy itself costs what the best base stock costs.",
)
def hdpo_evidence(seed: int, zoo: Any) -> Result:
    store, lost = OneStore(4), OneStore(3, backlogged=False)
    known, fresh = _known(store, _normal(640, 2 * seed), seed), _normal(512, 2 * seed + 1)
    ours = _cost(store, _tuned(lambda rate: hdpo(STEPS, 64, rate, seed).solve(known), known), fresh)
    rival = _cost(
        store, _tuned(lambda rate: score_function(STEPS, 64, rate, seed)(known), known), fresh
    )
    demand = poisson_demand(640, PERIODS, seed=2 * seed)
    other = poisson_demand(512, PERIODS, seed=2 * seed + 1)
    asked = _known(lost, demand, seed)
    learned = _tuned(lambda rate: hdpo(STEPS, 64, rate, seed).solve(asked), asked)
    graph, plain, moved, anew = _network(seed)
    return Result(
        ours,
        _best(store, fresh, False),
        {
            "REINFORCE against hindsight, equally tuned": (
                rival, ours, at_least(1.05, times=True),
            ),
            "lost sales, against the best capped base stock": (
                _cost(lost, learned, other), _best(lost, other, True), at_most(1.03, times=True),
            ),
            "lost sales, against the best base stock": (
                _cost(lost, learned, other), _best(lost, other, False), at_most(1.0, times=True),
            ),
            "graph net against plain net, 64 traces": (graph, plain, at_most(0.97, times=True)),
            "graph net in eight stores, against one trained there": (
                moved, anew, at_most(1.15, times=True),
            ),
        },
    )  # fmt: skip
