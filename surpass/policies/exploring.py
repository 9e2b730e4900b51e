"""How an explorer chooses: probabilities of every action from predicted rewards or losses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.forms import Outlook
from surpass.parts import Part, part

__all__ = [
    "boltzmann", "epsilon_greedy", "inverse_gap", "optimistic", "relative_inverse_gap", "sliced",
    "uniform",
]  # fmt: skip


def _offered(seen: Outlook) -> Tensor:
    if seen.available is None:
        return torch.ones_like(seen.mean)
    return seen.available.to(seen.mean.dtype)


def _rest_to_best(p: Tensor, best: Tensor, offered: Tensor) -> Float[Tensor, "B A"]:
    p = (p * offered).scatter(1, best, 0.0)
    return p.scatter(1, best, 1.0 - p.sum(1, keepdim=True))


@part
def uniform(seen: Outlook, /) -> Float[Tensor, "B A"]:
    """Every available action equally often."""
    offered = _offered(seen)
    return offered / offered.sum(1, keepdim=True)


@part
def boltzmann(seen: Outlook, /, temperature: float = 1.0) -> Float[Tensor, "B A"]:
    """In proportion to exp(mean / temperature)."""
    unavailable = _offered(seen) == 0
    return torch.softmax((seen.mean / temperature).masked_fill(unavailable, -torch.inf), 1)


@part
def epsilon_greedy(seen: Outlook, /, epsilon: float = 0.1) -> Float[Tensor, "B A"]:
    """The best predicted action, with `epsilon` a uniform one."""
    offered = _offered(seen)
    best = seen.mean.masked_fill(offered == 0, -torch.inf).argmax(1, keepdim=True)
    return epsilon * uniform()(seen) + (1 - epsilon) * torch.zeros_like(offered).scatter(1, best, 1)


@part
def inverse_gap(seen: Outlook, /, gamma: float = 100.0) -> Float[Tensor, "B A"]:
    """1 / (K + gamma (f(b) - f(a))) for all but the best predicted action b, which has the rest.

    K is the number of available actions; gamma = 0 is uniform, a large gamma greedy. `mean` holds
    rewards; for losses give their negatives. Abe and Long, Associative reinforcement learning using
    linear probabilistic concepts (1999); Foster and Rakhlin, Beyond UCB: optimal and efficient
    contextual bandits with regression oracles (2020).
    """
    offered = _offered(seen)
    top, best = seen.mean.masked_fill(offered == 0, -torch.inf).max(1, keepdim=True)
    p = 1 / (offered.sum(1, keepdim=True) + gamma * (top - seen.mean).clamp_min(0))
    return _rest_to_best(p, best, offered)


@part
def relative_inverse_gap(
    seen: Outlook, /, gamma: float = 100.0, least: float = 1e-6
) -> Float[Tensor, "B A"]:
    """y(b) / (K y(b) + gamma (y(a) - y(b))) with losses y = 1 - `mean`, b the least: it explores
    less where the best loss is small.

    Foster and Krishnamurthy, Efficient first-order contextual bandits: prediction, allocation, and
    triangular discrimination (2021).
    """
    offered, loss = _offered(seen), (1 - seen.mean).clamp(least, 1.0)
    low, best = loss.masked_fill(offered == 0, torch.inf).min(1, keepdim=True)
    p = low / (offered.sum(1, keepdim=True) * low + gamma * (loss - low).clamp_min(0))
    return _rest_to_best(p, best, offered)


@part
def optimistic(seen: Outlook, /, bonus: float = 1.0) -> Float[Tensor, "B A"]:
    """The available action with the largest `mean` + `bonus` `spread`, the first among equals.

    Auer, Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem (2002).
    """
    offered = _offered(seen)
    index = seen.mean if seen.spread is None else seen.mean + bonus * seen.spread
    best = index.masked_fill(offered == 0, -torch.inf).argmax(1, keepdim=True)
    return torch.zeros_like(offered).scatter(1, best, 1.0)


@part
def sliced(
    seen: Outlook, /, choose: Part[[Outlook], Tensor], share: float = 0.1
) -> Float[Tensor, "B A"]:
    """Another choice, but uniform on a `share` of the decisions, so that every available action has
    a positive probability and the log can judge any policy."""
    return share * uniform()(seen) + (1 - share) * choose(seen)
