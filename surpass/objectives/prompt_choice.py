"""Which prompts of a pool to ask next, from how often the policy answered each of them rightly.

A chooser is a part with state: from what came of the last choice to a score for every prompt, the
highest of which are asked. `rollouts(..., choose=likely_mixed(), pool=2000)` puts one in front of a
task or a log.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.parts import State, part

__all__ = ["Outcomes", "frontier", "likely_mixed", "uniform"]


@dataclass(frozen=True)
class Outcomes:
    """What came of the last choice, for every prompt of the pool: how many answers were judged,
    `asked` [N], and the sum of their rewards, `good` [N]; rewards in [0, 1]. `wanted` prompts will
    be asked next."""

    asked: Float[Tensor, "N"]
    good: Float[Tensor, "N"]
    wanted: int = 1


def _unseen() -> State:
    """Nothing is known before the first choice, not even how many prompts there are."""
    return {}


def _noise(like: Tensor) -> Tensor:
    """Gumbel noise: the largest of log w + noise are a draw without replacement by weights w."""
    return -torch.log(-torch.log(torch.rand_like(like).clamp(1e-20, 1 - 1e-7)))


@part(state=_unseen)
def uniform(state: State, seen: Outcomes, /) -> tuple[Float[Tensor, "N"], State]:
    """All prompts alike."""
    return torch.rand_like(seen.asked), state


@part(state=_unseen)
def likely_mixed(
    state: State, seen: Outcomes, /, own: float = 0.5, every: float = 0.99, anywhere: float = 0.1,
    thompson: bool = True,
) -> tuple[Float[Tensor, "N"], State]:  # fmt: skip
    """Thompson sampling for groups of mixed outcomes: a success rate p is drawn from each prompt's
    Beta belief, and p (1 - p) is its score; a share `anywhere` of the choice is drawn at random.

    Beliefs forget: those of prompts just answered keep `own` of their evidence before the new one
    is added, all keep `every` of it at each step, since the policy moves. `thompson=False` takes
    the mean of the belief instead of a draw.

    "VADE: Variance-Aware Dynamic Sampling via Online Sample-Level Difficulty Estimation for
    Multimodal RL" (2025); its two-scale decay is reconstructed.
    """
    one = torch.ones_like(seen.asked)
    a, b = state.get("a", one), state.get("b", one)
    keep = every * torch.where(seen.asked > 0, own * one, one)
    a = 1 + keep * (a - 1) + seen.good
    b = 1 + keep * (b - 1) + (seen.asked - seen.good)
    if thompson:
        # A Beta draw as a ratio of two Gamma draws.
        x, y = torch._standard_gamma(a), torch._standard_gamma(b)
        p = x / (x + y).clamp_min(1e-12)
    else:
        p = a / (a + b)
    score = p * (1 - p) + 1e-9 * torch.rand_like(p)  # ties are broken at random
    free = torch.rand_like(p).argsort().argsort() < round(anywhere * seen.wanted)
    return torch.where(free, one, score), {"a": a, "b": b}


@part(state=_unseen)
def frontier(
    state: State, seen: Outcomes, /, keep: float = 0.9, width: float = 0.35
) -> tuple[Float[Tensor, "N"], State]:
    """A draw without replacement with weights exp(-(p - 1/2)^2 / (2 width^2)), p each prompt's
    moving average of success rates, 1/2 at first.

    "FG-ExPO: Frontier-guided exploration-prioritized policy optimization via adaptive KL and
    Gaussian curriculum" (2026).
    """
    p = state.get("rate", torch.full_like(seen.asked, 0.5))
    rate = seen.good / seen.asked.clamp_min(1)
    p = torch.where(seen.asked > 0, keep * p + (1 - keep) * rate, p)
    score = -(p - 0.5).square() / (2 * width**2) + _noise(p)
    return score, {"rate": p}
