"""Policies that order goods: a plain net for one store, a plain net and a graph net for a warehouse
and its stores."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GraphOrders", "PlainOrders", "StoreOrders", "mlp"]


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ELU between."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers[:-1])


class StoreOrders(nn.Module):
    """One store: order = softplus(net(pipeline) + 1); `log_spread` serves score-function
    training."""

    def __init__(self, lead: int, scale: float = 5.0, width: int = 32) -> None:
        super().__init__()
        self.net, self.scale = mlp(lead, width, width, width, 1), scale
        self.log_spread = nn.Parameter(torch.zeros(()))

    def forward(self, pipe: Float[Tensor, "B L"]) -> Float[Tensor, "B"]:
        return self.scale * F.softplus(self.net(pipe / self.scale)[:, 0] + 1)


class PlainOrders(nn.Module):
    """A net over all inventories at once; the warehouse's stock is shared by a softmax with a spare
    logit for keeping it, its order is a sigmoid times twice the mean demand of all stores."""

    def __init__(self, stores: int, lead: int, supply: int, most: float, width: int = 32) -> None:
        super().__init__()
        self.net = mlp(stores * lead + supply, width, width, width, stores + 2)
        self.most = most

    def forward(
        self, pipe: Float[Tensor, "B K l"], stock: Float[Tensor, "B s"]
    ) -> tuple[Tensor, Tensor]:
        out = self.net(torch.cat((pipe.flatten(1), stock), 1) / 5.0)
        share = out[:, :-1].softmax(1)[:, :-1]
        return share * stock[:, :1].clamp_min(0), out[:, -1].sigmoid() * self.most


class GraphOrders(nn.Module):
    """Nodes are the warehouse and its stores, edges the shipments: the same small nets at every
    store and every edge, so that the policy fits any number of stores.

    A node's state is read from its inventories and traits; in each round an edge reads its ends, a
    store its edge, the warehouse the mean of its edges. Wanted shipments and the order per store
    are softplus, in units of the store's mean demand.
    """

    def __init__(
        self, traits: Float[Tensor, "K f"], mean: Float[Tensor, "K"], lead: int, supply: int,
        width: int = 32, rounds: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        f = traits.shape[1]
        self.begin_store = mlp(lead + f, width, width)
        self.begin_house = mlp(supply, width, width)
        self.edge = nn.ModuleList(mlp(2 * width, width, width) for _ in range(rounds))
        self.store = nn.ModuleList(mlp(2 * width, width, width) for _ in range(rounds))
        self.house = nn.ModuleList(mlp(2 * width, width, width) for _ in range(rounds))
        self.ship, self.order = mlp(2 * width, width, 1), mlp(2 * width, width, 1)
        self.traits, self.mean = traits, mean

    def placed(self, traits: Float[Tensor, "K f"], mean: Float[Tensor, "K"]) -> GraphOrders:
        """The same weights in another network of stores."""
        other = GraphOrders.__new__(GraphOrders)
        nn.Module.__init__(other)
        other._modules = self._modules
        other.traits, other.mean = traits, mean
        return other

    def forward(
        self, pipe: Float[Tensor, "B K l"], stock: Float[Tensor, "B s"]
    ) -> tuple[Tensor, Tensor]:
        B, K, _ = pipe.shape
        scaled = pipe / self.mean[:, None]
        s = self.begin_store(torch.cat((scaled, self.traits.expand(B, -1, -1)), -1))
        w = self.begin_house(stock / self.mean.sum())
        for edge, store, house in zip(self.edge, self.store, self.house, strict=True):
            e = edge(torch.cat((s, w[:, None].expand(-1, K, -1)), -1))
            s = s + store(torch.cat((s, e), -1))
            w = w + house(torch.cat((w, e.mean(1)), -1))
        both = torch.cat((s, w[:, None].expand(-1, K, -1)), -1)
        wanted = F.softplus(self.ship(both)[..., 0] + 0.5) * self.mean
        order = (F.softplus(self.order(both)[..., 0] + 0.5) * self.mean).sum(1)
        return wanted, order
