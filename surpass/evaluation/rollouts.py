"""What a policy is worth in its environment: rollouts of many episodes at once, and the interval of
their interquartile mean by a bootstrap that is stratified over seeds (the protocol of "Deep
Reinforcement Learning at the Edge of the Statistical Precipice", 2021).

    surpass.evaluation.rollouts.roll_out(trained.policy, "Pendulum-v1", episodes=100).mean
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError

__all__ = ["Interval", "Rollouts", "during", "interquartile_mean", "roll_out", "stratified"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rollouts:
    """Episodes of one policy.

    Attributes:
        returns: undiscounted, [episodes]. lengths: steps, [episodes].
    """

    returns: Float[Tensor, "E"]
    lengths: Int[Tensor, "E"]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def error(self) -> float:
        """The standard error of the mean return."""
        return float(self.returns.std() / len(self.returns) ** 0.5)


@torch.no_grad()
def roll_out(
    policy: Any, task: Any, episodes: int = 100, *, seed: int = 10_000, copies: int | None = None
) -> Rollouts:
    """Let a policy act for so many episodes.

    Every copy of the environment runs the same number of episodes to their end, so that short
    episodes are not counted more often than long ones.

    Args:
        policy: has `act(obs)` in the environment's units, or is a function from observations
            [n, d] to actions.
        task: an id, a task with `make`, or a pure simulator.
        episodes: rounded up to a multiple of the copies.
        seed: of the starts.
        copies: environments at once; None chooses.

    Raises:
        InputError: when there are no episodes to run, or an episode does not end.
    """
    if episodes < 1:
        raise InputError(f"at least one episode is needed, got episodes={episodes}")
    from surpass.tasks.catalog import opened

    task = opened(task)
    n = min(episodes, 64) if copies is None else copies
    each = -(-episodes // n)
    env = task.make(n, seed=seed)
    actor = _Actor(policy)
    obs = env.reset(seed)
    running, ages = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    returns: list[list[float]] = [[] for _ in range(n)]
    lengths: list[list[int]] = [[] for _ in range(n)]
    limit = 1_000_000 if env.spaces.horizon is None else env.spaces.horizon * each + 1
    for _ in range(limit):
        after = env.step(actor.act(obs))
        actor.remember(after.reward, after.terminated | after.truncated)
        running += after.reward.double()
        ages += 1
        for i in (after.terminated | after.truncated).nonzero()[:, 0].tolist():
            if len(returns[i]) < each:
                returns[i].append(float(running[i]))
                lengths[i].append(int(ages[i]))
            running[i], ages[i] = 0.0, 0
        obs = after.obs
        if all(len(r) >= each for r in returns):
            break
    else:
        raise InputError(f"an episode did not end within {limit} steps; set a time limit")
    env.close()
    flat = torch.tensor([r for copy in returns for r in copy])
    return Rollouts(flat, torch.tensor([x for copy in lengths for x in copy]))


class _Actor:
    """A policy with its memory, or a function from observations to actions.

    A policy that has `remember(memory, reward, done)` is told what every step paid.
    """

    def __init__(self, policy: Any) -> None:
        if hasattr(policy, "policy") and hasattr(policy, "nets"):  # what `train` returns
            policy = policy.policy
        self.policy, self.memory = policy, None

    def act(self, obs: Tensor) -> Tensor:
        if not hasattr(self.policy, "act"):
            return self.policy(obs)
        acted = self.policy.act(obs, self.memory)
        self.memory = acted.memory
        return acted.action

    def remember(self, reward: Tensor, done: Tensor) -> None:
        if self.memory is not None and hasattr(self.policy, "remember"):
            self.memory = self.policy.remember(self.memory, reward, done)


def during(task: Any, episodes: int = 20, seed: int = 10_000) -> Callable[[Any], dict[str, float]]:
    """What `train(evaluate=...)` takes: mean and standard error of the return in a task."""

    def measure(policy: Any) -> dict[str, float]:
        found = roll_out(policy, task, episodes, seed=seed)
        return {"return": found.mean, "error": found.error}

    return measure


def interquartile_mean(scores: Float[Tensor, "... N"]) -> Float[Tensor, "..."]:
    """The mean of the middle half: a quarter of the scores is cut off at each end, rounded down."""
    n = scores.shape[-1]
    cut = n // 4
    return scores.sort(-1).values[..., cut : n - cut].mean(-1)


def stratified(
    scores: Sequence[Tensor] | Tensor,
    statistic: Callable[[Tensor], Tensor] = interquartile_mean,
    *,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Interval:
    """A statistic of all scores and its percentile interval.

    Seeds are drawn anew, then episodes within each drawn seed, so that the interval holds for new
    training runs. With one seed only its episodes vary.

    Args:
        scores: one tensor of episode scores per training seed, of equal length.
        statistic: from [draws, all episodes] to [draws].

    Raises:
        InputError: when there are no scores, or seeds have unequal numbers of episodes.
    """
    rows = list(scores)
    if not rows or len({len(r) for r in rows}) != 1 or len(rows[0]) == 0:
        raise InputError(
            "scores are one row of episodes per seed, all of one length; got lengths "
            f"{[len(r) for r in rows]}"
        )
    table = torch.stack([r.double() for r in rows])  # [S, E]
    s, e = table.shape
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(s, (draws, s, 1), generator=generator)
    episode = torch.randint(e, (draws, s, e), generator=generator)
    found = statistic(table[which, episode].flatten(1))
    tail = (1.0 - level) / 2.0
    low, high = torch.quantile(found, torch.tensor([tail, 1.0 - tail], dtype=found.dtype)).tolist()
    return Interval(float(statistic(table.flatten()[None])[0]), low, high)
