"""What a log of episodes holds, in a few numbers: returns, lengths, coverage, quality, spread.

Coverage (SACo) and quality (TQ) are those of Schweighofer et al., A dataset perspective on offline
reinforcement learning (2022), whose finding is a guide: where TQ is high, cloning is hard to beat;
where TQ and SACo are both fair, learners that stay near the data do well; where only SACo is high,
ordinary Q-learning does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError

__all__ = [
    "LogStatistics",
    "action_spread",
    "episode_lengths",
    "episode_returns",
    "saco",
    "statistics",
    "trajectory_quality",
    "unique_pairs",
]

Limits = tuple[Tensor, Tensor]


def _number(log: Transitions) -> Int[Tensor, "N"]:
    return torch.unique_consecutive(log.episode, return_inverse=True)[1]


def episode_returns(log: Transitions, gamma: float = 1.0) -> Float[Tensor, "E"]:
    """sum_t gamma^t r_t of every episode."""
    number, length = _number(log), episode_lengths(log)
    starts = torch.cumsum(length, 0) - length
    step = torch.arange(len(number)) - starts[number]
    paid = log.reward.double() * torch.as_tensor(gamma, dtype=torch.float64) ** step
    return torch.zeros(len(length), dtype=torch.float64).index_add(0, number, paid)


def episode_lengths(log: Transitions) -> Int[Tensor, "E"]:
    """Steps of every episode."""
    return torch.unique_consecutive(log.episode, return_counts=True)[1]


def _limits(log: Transitions) -> Limits:
    x = _pairs(log)
    return x.amin(0), x.amax(0)


def _pairs(log: Transitions) -> Float[Tensor, "N k"]:
    rows = len(log.reward)
    obs, action = log.obs.reshape(rows, -1), log.action.reshape(rows, -1)
    return torch.cat([obs.double(), action.double()], 1)


def unique_pairs(log: Transitions, limits: Limits | None = None, bins: int = 100) -> int:
    """How many different (s, a) there are; continuous dimensions fall into `bins` equal bins.

    Args:
        limits: lowest and highest value of every dimension of observation and action; the log's own
            when not given. Logs that are compared need the same ones. What lies outside counts as
            the outermost bin. A discrete action is a bin of its own.
    """
    low, high = _limits(log) if limits is None else limits
    width = (high - low).clamp_min(1e-12) / bins
    place = ((_pairs(log) - low) / width).floor().clamp(0, bins - 1).long()
    if not log.action.is_floating_point():
        place[:, -1] = log.action.long()
    return len(torch.unique(place, dim=0))


def saco(log: Transitions, reference: Transitions | None = None, bins: int = 100) -> float:
    """State-action coverage.

    With a reference (the replay log of an online run, in the paper): unique pairs of the log over
    those of the reference, both binned by the reference's limits. Without one: unique pairs over
    rows, the share of steps that show something new.
    """
    if reference is None:
        return unique_pairs(log, bins=bins) / len(log.reward)
    limits = _limits(reference)
    return unique_pairs(log, limits, bins) / unique_pairs(reference, limits, bins)


def trajectory_quality(log: Transitions, random: float, best: float) -> float:
    """TQ = (mean return - random) / (best - random).

    Args:
        random: mean return of uniform actions. best: the best return known.

    Raises:
        InputError: when `best` is not above `random`.
    """
    if not best > random:
        raise InputError(f"the best return ({best:g}) must be above that of random ({random:g})")
    return (float(episode_returns(log).mean()) - random) / (best - random)


def action_spread(log: Transitions) -> list[float]:
    """How much actions vary: per dimension the standard deviation over the half width of the
    bounds (stated, else seen); for discrete actions the entropy of their shares over log A."""
    if not log.action.is_floating_point():
        share = torch.bincount(log.action.long()).double() / len(log.action)
        many = max(int(log.about.spaces.get("n_actions", len(share))), 2)
        entropy = -torch.xlogy(share, share).sum()
        return [float(entropy / torch.tensor(many, dtype=torch.float64).log())]
    a = log.action.reshape(len(log.action), -1).double()
    spaces = log.about.spaces
    low = torch.as_tensor(spaces.get("action_low", a.amin(0).tolist()), dtype=torch.float64)
    high = torch.as_tensor(spaces.get("action_high", a.amax(0).tolist()), dtype=torch.float64)
    return (a.std(0, unbiased=False) / (0.5 * (high - low)).clamp_min(1e-12)).tolist()


@dataclass(frozen=True)
class LogStatistics:
    """Numbers of a log of episodes.

    Attributes:
        steps, episodes: how many. terminated: share of episodes that ended for good.
        mean_return, return_deviation, return_quantiles: of undiscounted returns; the quantiles are
            the lowest, 25 %, 50 %, 75 % and the highest.
        mean_length, lengths: of episodes; `lengths` are shortest and longest.
        coverage: unique state-action pairs over steps, or over those of a reference log (SACo).
        quality: TQ, where random and best returns are known.
        spread: see `action_spread`. sparsity: share of steps that pay nothing.
        logged_probabilities: whether the behavior policy's log-probs were logged.
    """

    steps: int
    episodes: int
    terminated: float
    mean_return: float
    return_deviation: float
    return_quantiles: tuple[float, ...]
    mean_length: float
    lengths: tuple[int, int]
    coverage: float
    quality: float | None
    spread: tuple[float, ...]
    sparsity: float
    logged_probabilities: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def statistics(
    log: Transitions,
    *,
    random: float | None = None,
    best: float | None = None,
    reference: Transitions | None = None,
) -> LogStatistics:
    """All numbers of a log; see `LogStatistics`.

    Args:
        random, best: returns that stand for 0 and 1 of the quality.
        reference: the log that coverage is relative to.
    """
    paid, length = episode_returns(log), episode_lengths(log)
    points = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    known = random is not None and best is not None
    return LogStatistics(
        steps=len(log.reward),
        episodes=len(paid),
        terminated=float(log.terminated.sum()) / len(paid),
        mean_return=float(paid.mean()),
        return_deviation=float(paid.std(unbiased=False)),
        return_quantiles=tuple(torch.quantile(paid, points).tolist()),
        mean_length=float(length.double().mean()),
        lengths=(int(length.min()), int(length.max())),
        coverage=saco(log, reference),
        quality=trajectory_quality(log, random, best) if known else None,  # type: ignore[arg-type]
        spread=tuple(action_spread(log)),
        sparsity=float((log.reward == 0).double().mean()),
        logged_probabilities=log.behavior_logp is not None,
    )
