"""The best of k answers: its unbiased estimate from n >= k, and the advantages that raise it.

With rewards sorted upward, r_1 <= ... <= r_n, a subset of k has its maximum at place i in
C(i-1, k-1) of C(n, k) cases. For rewards of 0 and 1 the mean best of k is pass@k.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.advantage import Sequences, leave_one_out, over_decisions, same_group
from surpass.parts import part

__all__ = ["best_at_k", "max_at_k"]


def choose(n: Tensor, k: int | Tensor) -> Tensor:
    """C(n, k) in double precision, 0 where n < k or k < 0."""
    n, k = torch.broadcast_tensors(n.double(), torch.as_tensor(k, dtype=torch.float64))
    inside = (n >= k) & (k >= 0)
    a, b = torch.where(inside, n, 0.0), torch.where(inside, k, 0.0)
    log = torch.lgamma(a + 1) - torch.lgamma(b + 1) - torch.lgamma(a - b + 1)
    return torch.where(inside, log.exp(), 0.0)


def best_at_k(reward: Float[Tensor, "P n"], k: int) -> Float[Tensor, "P"]:
    """The mean over subsets of k of n answers of their largest reward: unbiased for the best of k
    fresh ones. For 0 and 1 it is pass@k = 1 - C(n - c, k) / C(n, k), c the number of ones.

    "Evaluating Large Language Models Trained on Code" (2021).

    Raises:
        InputError: when k is not between 1 and n.
    """
    n = reward.shape[-1]
    if not 1 <= k <= n:
        raise InputError(f"the best of {k} cannot be estimated from {n} answers; take k <= {n}")
    place = torch.arange(n, dtype=torch.float64, device=reward.device)
    weight = choose(place, k - 1) / choose(torch.tensor(float(n)), k)
    return (reward.double().sort(-1).values * weight).sum(-1)


@part(needs=("group",))
def max_at_k(seq: Sequences, /, k: int = 4) -> Float[Tensor, "B T"]:
    """n s_i with s_i = sum over lower ranked j of C(j-1, k-2) (r_i - r_j) / C(n, k): the gradient
    of
    the expected best of k, each subset's baseline being the best of its other members.

    Never negative, and 0 for the lowest k - 1. With k = 1, `leave_one_out`. "The Best of N Worlds:
    Aligning Reinforcement Learning with Best-of-N Sampling via max@k Optimisation" (2025).

    Raises:
        InputError: when a group has fewer than k answers.
    """
    if k == 1:
        return leave_one_out()(seq)
    same, reward = same_group(seq).double(), seq.total.double()
    size = same.sum(-1)
    if not torch.compiler.is_compiling() and bool((size < k).any()):
        raise InputError(f"max@{k} needs groups of at least {k} answers, not {int(size.min())}")
    order = torch.arange(len(reward), device=reward.device)
    lower = (reward[None, :] < reward[:, None]) | (
        (reward[None, :] == reward[:, None]) & (order[None, :] < order[:, None])
    )
    below = same * lower  # 1 where j ranks below i in the group of i
    rank = below.sum(-1)
    pairs = below * choose(rank, k - 2)[None, :] * (reward[:, None] - reward[None, :])
    weight = size * pairs.sum(-1) / choose(size, k)
    return over_decisions(weight.to(seq.mask.dtype), seq)
