"""Inventory with known dynamics and recorded demand: every cost is a differentiable function of the
orders, so what a policy would have cost on a trace is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = ["OneStore", "Warehouse", "base_stock", "correlated_demand", "poisson_demand"]

Orders = Callable[[Float[Tensor, "B L"]], Float[Tensor, "B"]]


@dataclass(frozen=True)
class OneStore:
    """One store with lead time L: an order made now arrives after L periods.

    Each period costs shortage x unmet demand + holding x what is left; unmet demand waits
    (`backlogged`) or is lost.

    Raises:
        InputError: when the lead time is not positive.
    """

    lead: int = 4
    shortage: float = 9.0
    holding: float = 1.0
    backlogged: bool = True

    def __post_init__(self) -> None:
        if self.lead < 1:
            raise InputError(f"the lead time is at least 1, not {self.lead}")

    def cost(
        self, orders: Orders, demand: Float[Tensor, "B T"], skip: int = 0
    ) -> Float[Tensor, "B"]:
        """The mean cost a period of a policy on demand traces, after the first `skip` periods.

        `orders` sees the pipeline [B, L]: what is on hand, then what arrives in 1 to L - 1 periods.
        It starts with nothing.
        """
        B, T = demand.shape
        pipe = demand.new_zeros(B, self.lead)
        total = demand.new_zeros(B)
        for t in range(T):
            order = orders(pipe)
            on_hand = pipe[:, 0] - demand[:, t]
            if t >= skip:
                short, left = (-on_hand).clamp_min(0), on_hand.clamp_min(0)
                total = total + self.shortage * short + self.holding * left
            on_hand = on_hand if self.backlogged else on_hand.clamp_min(0)
            coming = torch.cat((pipe[:, 1:], order[:, None]), 1)
            pipe = torch.cat((on_hand[:, None] + coming[:, :1], coming[:, 1:]), 1)
        return total / (T - skip)


def base_stock(level: float | Tensor, cap: float | Tensor | None = None) -> Orders:
    """Order up to a level of all that is on hand and on the way, at most `cap` a period."""

    def orders(pipe: Tensor) -> Tensor:
        order = (level - pipe.sum(1)).clamp_min(0)
        return order if cap is None else torch.minimum(order, torch.as_tensor(cap).to(order))

    return orders


def poisson_demand(n: int, periods: int, mean: float = 5.0, seed: int = 0) -> Tensor:
    """Independent Poisson demand [n, periods]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((n, periods), mean), generator=generator)


def correlated_demand(
    n: int, periods: int, mean: Float[Tensor, "K"], spread: Float[Tensor, "K"],
    correlation: float = 0.5, seed: int = 0,
) -> Float[Tensor, "n periods K"]:  # fmt: skip
    """Normal demand of K stores, correlated within a period, not below zero."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, periods, 1, generator=generator)
    own = torch.randn(n, periods, len(mean), generator=generator)
    z = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
    return (mean + spread * z).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Warehouse:
    """A warehouse that supplies K stores, lost sales nowhere: stores backlog, shipments are limited
    by what the warehouse holds.

    Attributes:
        shortage, holding: of the stores [K]. mean, spread: of their demand [K], known to policies.
        lead: of shipments. supply: lead time of the warehouse. storage: its holding cost.
    """

    shortage: Float[Tensor, "K"]
    holding: Float[Tensor, "K"]
    mean: Float[Tensor, "K"]
    spread: Float[Tensor, "K"]
    lead: int = 2
    supply: int = 3
    storage: float = 0.3

    @property
    def stores(self) -> int:
        """K."""
        return len(self.mean)

    @property
    def traits(self) -> Float[Tensor, "K 4"]:
        """What is fixed about each store, scaled."""
        return torch.stack((self.shortage / 10, self.holding, self.mean / 5, self.spread / 2), 1)

    def cost(
        self, policy: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        demand: Float[Tensor, "B T K"], skip: int = 0,
    ) -> Float[Tensor, "B"]:  # fmt: skip
        """The mean cost a period and store. `policy` sees the stores' pipelines [B, K, lead] and
        the
        warehouse's [B, supply]; it gives the wanted shipments [B, K], which are cut in proportion
        to
        what is there, and the warehouse's order [B]."""
        B, T, K = demand.shape
        pipe, stock = demand.new_zeros(B, K, self.lead), demand.new_zeros(B, self.supply)
        total = demand.new_zeros(B)
        for t in range(T):
            wanted, order = policy(pipe, stock)
            share = (stock[:, 0] / wanted.sum(1).clamp_min(1e-6)).clamp(max=1.0)
            sent = wanted * share[:, None]
            on_hand = pipe[..., 0] - demand[:, t]
            left = (stock[:, 0] - sent.sum(1)).clamp_min(0)
            if t >= skip:
                short, over = (-on_hand).clamp_min(0), on_hand.clamp_min(0)
                total = total + (self.shortage * short + self.holding * over).sum(1)
                total = total + self.storage * left
            coming = torch.cat((pipe[..., 1:], sent[..., None]), -1)
            pipe = torch.cat((on_hand[..., None] + coming[..., :1], coming[..., 1:]), -1)
            next_ = torch.cat((stock[:, 1:], order[:, None]), 1)
            stock = torch.cat((left[:, None] + next_[:, :1], next_[:, 1:]), 1)
        return total / (T - skip) / K
