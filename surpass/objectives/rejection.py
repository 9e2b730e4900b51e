"""Statistical rejection sampling: answers of one policy, thinned to those of another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = ["rejection_sampled"]


def rejection_sampled(
    reward: Float[Tensor, "N"], count: int, beta: float, generator: torch.Generator | None = None
) -> list[int]:
    """Which of N candidates are kept, in the order in which they were: each passes with probability
    exp((r - max r) / beta), the maximum over the candidates left, round after round until `count`
    are kept; candidates of pi then are answers of pi exp(r / beta).

    beta = 0 keeps the best ones, infinity a random choice. "Statistical Rejection Sampling Improves
    Preference Optimization" (2023).

    Raises:
        InputError: when there are fewer candidates than asked for, or beta is negative.
    """
    if not 0 < count <= len(reward) or beta < 0:
        raise InputError(
            f"{count} of {len(reward)} candidates at beta={beta}: give a count from 1 to the "
            "number of candidates, and a beta of 0 or more"
        )
    if beta == 0:
        return reward.argsort(descending=True)[:count].tolist()
    left = torch.arange(len(reward))
    kept: list[int] = []
    score = reward.detach().double().cpu()
    while len(kept) < count:
        held = score[left]
        chance = ((held - held.max()) / beta).exp()
        drawn = torch.rand(len(left), generator=generator, dtype=torch.float64) < chance
        order = torch.randperm(len(left), generator=generator)
        new = [int(i) for i in order.tolist() if bool(drawn[i])][: count - len(kept)]
        kept += left[new].tolist()
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[new] = False
        left = left[stay]
    return kept
