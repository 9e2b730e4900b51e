"""Reasoning steps that are mixtures of tokens: their targets, and what is random about them.

"Continuous Chain of Thought Enables Parallel Exploration and Reasoning" (2025).
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.parts import Nets, part

__all__ = [
    "dirichlet_logp", "least_signed_sum", "multi_token_logp", "partial_sums", "soft_labels",
    "states_of",
]  # fmt: skip


def signs(m: int, device: Any = None) -> Float[Tensor, "K m"]:
    """All 2^m choices of signs."""
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=m)), device=device)


def least_signed_sum(numbers: Float[Tensor, "B m"]) -> tuple[Tensor, Tensor]:
    """The least sum that is not negative over all signs [B], and the number of signs' row."""
    total = numbers @ signs(numbers.shape[-1], numbers.device).t()
    held = torch.where(total >= 0, total, torch.full_like(total, torch.inf))
    found = held.min(-1)
    return found.values, found.indices


def states_of(numbers: Float[Tensor, "B m"]) -> int:
    """How many states the partial sums of these numbers have, 0 in the middle."""
    return 2 * int(numbers.abs().sum(-1).max()) + 1


def partial_sums(
    numbers: Float[Tensor, "B m"], vocab: int, budget: int = 0
) -> Float[Tensor, "B m v"]:
    """alpha*_t: the share of traces whose partial sum after t numbers is each state, and at the
    last step the answer alone. State s is token s + (vocab - 1) / 2.

    Args:
        vocab: at least `states_of(numbers)`; sums beyond it have no token, and no share.
        budget: 0 takes all 2^m traces, 1 the one that leads to the answer (a discrete chain of
            thought), B the B traces whose sums are least but not negative first.
    """
    m, half = numbers.shape[-1], (vocab - 1) // 2
    each = signs(m, numbers.device)
    running = (numbers[:, None] * each).cumsum(-1)  # [B, K, m]
    total = running[..., -1]
    order = torch.where(total >= 0, total, total.abs() + 10.0 * vocab).argsort(dim=-1, stable=True)
    rank = order.argsort(-1)
    kept = (rank < (budget or each.shape[0])).to(numbers.dtype)
    states = torch.arange(-half, half + 1, device=numbers.device)
    tokens = (running[..., None] == states).to(numbers.dtype)
    share = (tokens * kept[..., None, None]).sum(1) / kept.sum(-1)[:, None, None]
    answer = (tokens[:, :, -1] * (rank == 0)[..., None].to(numbers.dtype)).sum(1)
    return torch.cat([share[:, :-1], answer[:, None]], 1)


@part
def soft_labels(nets: Nets, rows: Any, /, net: str = "model", budget: int = 0) -> Tensor:
    """Cross-entropy of each step's distribution to the share of traces at each state, summed over
    steps, [B]; `rows.obs` are the numbers. Teacher forcing feeds the target's mixture."""
    model = nets[net]
    target = partial_sums(rows.obs, model.vocab, budget)
    return -(target * model.steps(rows.obs, target).log_softmax(-1)).sum((-1, -2))


def multi_token_logp(
    log_alpha: Float[Tensor, "*n v"], draws: Int[Tensor, "*n K"]
) -> Float[Tensor, "*n"]:
    """The mean over K tokens drawn from alpha of their log-probs, so that differences are the log
    of the ratio (prod_r alpha(i_r) / alpha_old(i_r))^(1/K); with K = 1 a token's log-prob."""
    return log_alpha.gather(-1, draws).mean(-1)


def dirichlet_logp(
    log_alpha: Float[Tensor, "*n v"], mixture: Float[Tensor, "*n v"], concentration: float
) -> Float[Tensor, "*n"]:
    """log Dir(mixture; concentration x alpha) / v: a density per token, whose ratios stay near
    1."""
    mass = concentration * log_alpha.exp()
    norm = torch.lgamma(mass.sum(-1)) - torch.lgamma(mass).sum(-1)
    return (norm + ((mass - 1) * mixture.log()).sum(-1)) / log_alpha.shape[-1]
