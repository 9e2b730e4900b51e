"""Classifying people who move to be accepted, where a move may change the outcome itself.

A person at x with f(x) = w'x + b < 0 moves to the nearest accepted point if it is no further than
`reach` (a cost alpha d^2 of at most 2, alpha = 2 / reach^2). Some columns are causal: what is true
of the person after the move is h(x_c after, x_r before).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "Moved", "hinge", "log_density", "respond", "respond_smoothly", "soft_labels",
    "strategic_hinge", "traced_back",
]  # fmt: skip


class Moved(NamedTuple):
    """Where people are after they answered a rule, [n, d], and how surely each moved, [n]."""

    x: Tensor
    moved: Tensor


def respond(
    x: Float[Tensor, "n d"], w: Float[Tensor, "d"], b: Tensor, reach: float
) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n"]]:
    """The exact answer: to the boundary, where it is within reach."""
    norm = w.norm().clamp_min(1e-12)
    distance = -(x @ w + b) / norm
    moves = (distance > 0) & (distance <= reach)
    return torch.where(moves[:, None], x + distance[:, None] * w / norm, x), moves


def respond_smoothly(
    x: Float[Tensor, "n d"], w: Float[Tensor, "d"], b: Tensor, reach: float, tau: float = 4.0
) -> Moved:
    """The same with gradient: x + (x' - x) sigmoid(tau (2 - cost)), moved with
    sigmoid(tau (2 - cost)) (2 sigmoid(tau cost) - 1)."""
    norm = w.norm().clamp_min(1e-12)
    distance = (-(x @ w + b) / norm).clamp_min(0)
    cost = 2 * (distance / reach).square()
    gate = torch.sigmoid(tau * (2 - cost))
    after = x + (gate * distance)[:, None] * w / norm
    return Moved(after, gate * (2 * torch.sigmoid(tau * cost) - 1))


def soft_labels(
    y: Float[Tensor, "n"], moved: Float[Tensor, "n"], after: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """y + (2 sigmoid(h) - 1 - y) moved: the known label of who stays, the predicted one (logit h)
    of who moves."""
    return y + (2 * torch.sigmoid(after) - 1 - y) * moved


def hinge(y: Float[Tensor, "n"], f: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """max(0, 1 - y f)."""
    return torch.relu(1 - y * f)


def strategic_hinge(
    y: Float[Tensor, "n"], f: Float[Tensor, "n"], w: Float[Tensor, "d"], reach: float
) -> Float[Tensor, "n"]:
    """max(0, 1 - y (f + reach |w|)): everybody can gain `reach` of distance.

    Levanon and Rosenfeld, Generalized strategic classification and the case of aligned incentives
    (2022).
    """
    return torch.relu(1 - y * (f + reach * w.norm()))


def log_density(
    at: Float[Tensor, "m d"], data: Float[Tensor, "n d"], width: float,
    weight: Float[Tensor, "n"] | None = None,
) -> Float[Tensor, "m"]:  # fmt: skip
    """Log of a Gaussian kernel density, without its constant."""
    share = torch.ones(len(data), dtype=data.dtype) if weight is None else weight
    near = -torch.cdist(at, data).square() / (2 * width**2)
    return torch.logsumexp(near + (share / share.sum()).log(), 1)


def traced_back(
    x: Float[Tensor, "n d"], w: Float[Tensor, "d"], reach: float,
    density: Callable[[Tensor], Tensor], points: int = 20,
) -> Float[Tensor, "n d"]:  # fmt: skip
    """Where people on the boundary came from, on average: the mean along the segment of length
    `reach` behind them, weighed by exp(density) of where people are before they move."""
    back = torch.linspace(0, reach, points, dtype=x.dtype)
    path = x[:, None] - back[:, None] * w / w.norm().clamp_min(1e-12)
    share = torch.softmax(density(path.flatten(0, 1)).view(len(x), points), 1)
    return (share[..., None] * path).sum(1)
