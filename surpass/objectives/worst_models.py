"""Policies against the worst of several models: [M, ...] stands for one entry a model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["greedy_on_least", "rectangular_backup"]


def greedy_on_least(q: Float[Tensor, "M S A"]) -> Float[Tensor, "S A"]:
    """The best action by the least of the models' values, as probabilities:

        pi(s) = argmax_a min_m Q_m(s, a)

    Among equally good actions (to 1e-10) the first is taken.
    """
    least = q.min(0).values
    best = least >= least.max(-1, keepdim=True).values - 1e-10
    first = best.double().argmax(-1)  # the first of the largest
    return torch.nn.functional.one_hot(first, q.shape[-1]).to(q.dtype)


def rectangular_backup(
    P: Float[Tensor, "M S A S"], r: Float[Tensor, "M S A"], v: Float[Tensor, "S"], gamma: float
) -> Float[Tensor, "S A"]:
    """min_m r_m(s, a) + gamma P_m(.|s, a) v: nature picks a model anew for every state and action.

    Robust Dynamic Programming (2005).
    """
    return (r + gamma * torch.einsum("msat,t->msa", P, v)).min(0).values
