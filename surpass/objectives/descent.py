"""Gradient rules: one direction from the gradients of a loss's terms.

A rule stands in a step, `train("v", loss, gradient=orthogonal("forward", "backward"))`, and sees a
`Descent`: `.terms`, `.parameters`, `.grad(*terms)` and `.at(parameters)`. All parameters of the
step count as one long vector. Without a rule the gradient is that of the sum of all terms. A rule
with a tensor `rate` in its state has the optimizer's step multiplied by it: Adam takes no notice of
the size of a gradient.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.parts import State, part

__all__ = ["divided_by", "dot", "norm_ball", "orthogonal"]

Tensors = dict[str, Tensor]


class Descent(Protocol):
    """What a rule sees (`surpass.forms.Descent`)."""

    terms: Tensors

    def grad(self, *names: str) -> Tensors: ...


def dot(a: Tensors, b: Tensors) -> Float[Tensor, ""]:
    """The inner product of two gradients as long vectors."""
    return torch.stack([(a[k] * b[k]).sum() for k in a]).sum()


@part
def orthogonal(
    d: Descent, /, keep: str, project: str, weight: float = 1.0, eps: float = 1e-10
) -> Tensors:
    """g_keep + weight (g_project - <g_keep, g_project> / |g_keep|^2 g_keep) + all other terms': of
    one term only what is orthogonal to another's gradient.

    |g_keep|^2 is held above `eps`. "ODICE: Revealing the Mystery of Distribution Correction
    Estimation via Orthogonal-gradient Update" (2024).
    """
    kept, other = d.grad(keep), d.grad(project)
    rest = tuple(n for n in d.terms if n != project)
    base = kept if rest == (keep,) else d.grad(*rest)
    share = dot(kept, other) / dot(kept, kept).clamp(min=eps)
    return {k: base[k] + weight * (other[k] - share * kept[k]) for k in base}


@part(state=lambda warmup=10: {"seen": torch.zeros(warmup), "count": torch.zeros(())})
def divided_by(
    state: State, d: Descent, /, term: str, warmup: int = 10, literal: bool = False
) -> tuple[Tensors, State]:
    """The gradient of all other terms, divided by the size of one term's: where clipping threw
    away much, the step is small.

        g / max(1, |g_term| / c),   c the median of |g_term| over the first `warmup` updates in
                                    which it was not 0

    With `literal` it is g / max(|g_term|, 1e-3). Where |g_term| is 0, g stays as it is. "ST-PPO:
    Stabilized Off-Policy Proximal Policy Optimization for Multi-Turn Agents Training" (2025), which
    leaves open what happens where nothing was clipped.
    """
    removed = d.grad(term)
    g = d.grad(*(n for n in d.terms if n != term))
    size = dot(removed, removed).sqrt()
    seen, count = state["seen"], state["count"]
    places = torch.arange(warmup, device=seen.device)
    taken = (size > 0) & (count < warmup)
    seen = torch.where((places == count) & taken, size, seen)
    count = count + taken.to(count.dtype)
    ordered = torch.where(places < count, seen, torch.inf).sort().values
    middle = places == ((count - 1) / 2).floor().clamp(min=0)
    typical = torch.where(middle, ordered, torch.zeros_like(ordered)).sum()
    by = size.clamp(min=1e-3) if literal else (size / typical).clamp(min=1.0)
    by = torch.where(size > 0, by, torch.ones_like(by))
    return {k: v / by for k, v in g.items()}, {"seen": seen, "count": count}


@part
def norm_ball(parameters: Tensors, /, radius: float = 100.0) -> Tensors:
    """A projection of a net's parameters: each weight matrix (of each member of an ensemble) with
    an l2 norm above `radius` is scaled back to it; biases stay as they are.

    "Adversarially Trained Actor Critic for Offline Reinforcement Learning" (2022).
    """
    out = {}
    for name, p in parameters.items():
        matrix = p.dim() >= 2 and "weight" in name
        norm = p.square().sum((-2, -1), keepdim=True).sqrt() if matrix else p
        out[name] = p * (radius / norm.clamp(min=radius)) if matrix else p
    return out
