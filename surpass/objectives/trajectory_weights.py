"""How often a log's episodes are drawn: weights of rows from what their episodes earned.

A weight sees the log (`reward`, `episode`, `obs`) and gives one number per row, [N]; rows are drawn
in proportion, `log(weigh=by_return(0.1))`, so that critics and policies see one and the same data,
that of a better behavior policy. An episode has mass length times weight.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.parts import part

__all__ = ["by_advantage", "by_return", "episode_returns", "positive_variance", "top_share"]


def episode_returns(log: Any) -> tuple[Float[Tensor, "n"], Int[Tensor, "N"]]:
    """What each episode earned, undiscounted, in the order of their first rows; and each row's
    place in it."""
    _, place = torch.unique_consecutive(log.episode, return_inverse=True)
    count = int(place.max()) + 1
    zeros = torch.zeros(count, dtype=torch.float64, device=place.device)
    return zeros.index_add(0, place, log.reward.double()), place


def _softened(score: Float[Tensor, "n"], place: Tensor, alpha: float) -> Float[Tensor, "N"]:
    """exp(c / alpha) of each row's episode, c the score moved to [0, 1]."""
    low, high = score.min(), score.max()
    c = (score - low) / (high - low).clamp_min(1e-12)
    return (c / alpha).exp()[place]


@part
def by_return(log: Any, /, alpha: float = 0.1) -> Float[Tensor, "N"]:
    """exp(c / alpha), c the episode's return moved to [0, 1] over the log (RW).

    "Harnessing Mixed Offline Reinforcement Learning Datasets via Trajectory Weighting" (2023).
    """
    returns, place = episode_returns(log)
    return _softened(returns, place, alpha)


def _above_start(log: Any) -> tuple[Float[Tensor, "n"], Tensor]:
    """Each episode's return minus a linear prediction of it from its first observation."""
    returns, place = episode_returns(log)
    first = torch.ones_like(place, dtype=torch.bool)
    first[1:] = place[1:] != place[:-1]
    start = log.obs[first].reshape(len(returns), -1).double()
    design = torch.cat([start, torch.ones_like(start[:, :1])], 1)
    fit = torch.linalg.lstsq(design, returns[:, None], driver="gelsd").solution
    return returns - (design @ fit)[:, 0], place


@part
def by_advantage(log: Any, /, alpha: float = 0.1) -> Float[Tensor, "N"]:
    """The same with the return's advantage over what the start state promised, a linear regression
    (AW): luck with the start does not count."""
    above, place = _above_start(log)
    return _softened(above, place, alpha)


@part
def top_share(log: Any, /, share: float = 0.1) -> Float[Tensor, "N"]:
    """1 for the rows of the best `share` of episodes by return, 0 for the others."""
    returns, place = episode_returns(log)
    keep = max(1, round(share * len(returns)))
    best = torch.zeros_like(returns).scatter(0, returns.topk(keep).indices, 1.0)
    return best[place]


def positive_variance(log: Any, above_start: bool = False) -> float:
    """E[max(G - mean G, 0)^2] over episodes (or around the start's prediction): how much there is
    to be gained by drawing the better ones more often."""
    apart = _above_start(log)[0] if above_start else episode_returns(log)[0]
    return float((apart - apart.mean()).clamp(min=0).square().mean())
