"""A log of episodes as the verdict sees it: parts that learn, choose and judge; steps on a grid of
episodes and times; the value baseline; the range of a step's reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import Transitions
from surpass.data.statistics import episode_lengths
from surpass.errors import InputError
from surpass.improve.episode_candidates import EpisodeCandidate, flat
from surpass.improve.on_policy import known_rewards
from surpass.improve.scoring import RewardRange, with_an_end

__all__ = [
    "GAMMA", "SHARES", "Grid", "Parts", "ToGo", "Weighed", "horizon_of", "split_episodes",
    "step_range",
]  # fmt: skip

SHARES = (0.4, 0.2)  # of the episodes: to learn on, to choose on; the rest judges
GAMMA = 0.99  # of the learners and of fitted Q evaluation; the verdict is about plain returns


@dataclass(frozen=True)
class Parts:
    """Episodes to learn on, to choose on, and to judge by."""

    learning: Transitions
    choosing: Transitions
    judging: Transitions


def split_episodes(log: Transitions, seed: int = 0) -> Parts:
    """A seeded permutation of whole episodes, cut by `SHARES`."""
    number = torch.unique_consecutive(log.episode, return_inverse=True)[1]
    count = int(number.max()) + 1
    place = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    first, second = round(SHARES[0] * count), round(sum(SHARES) * count)
    part = torch.full((count,), 2)
    part[place[:second]] = 1
    part[place[:first]] = 0
    return Parts(*(log[part[number] == k] for k in range(3)))


@dataclass
class Weighed:
    """A candidate with what was found out about it, on choosing and on judging episodes."""

    candidate: EpisodeCandidate
    worth: float  # fitted Q evaluation, discounted, over that of the behavior policy
    choosing: Tensor | None = None
    judging: Tensor | None = None
    floor: float = 0.0
    losses: Tensor | None = None  # the same as a loss, with a lower limit of its own, on judging
    losses_floor: float = 0.0
    ess: float = 0.0
    chosen_ess: float = 0.0

    def promise(self, rows: int) -> float:
        """The t statistic to expect on the judging episodes, the guard counted."""
        if self.choosing is None:
            return float("-inf")
        gain, sd = float(self.choosing.mean()), float(self.choosing.std()) + 1e-9
        return (rows * gain - abs(self.floor)) / (sd * rows**0.5)


@dataclass(frozen=True)
class Grid:
    """Where each step stands among episodes and times, [E, T]."""

    number: Tensor
    step: Tensor
    mask: Float[Tensor, "E T"]

    @classmethod
    def of(cls, log: Transitions) -> Grid:
        number = torch.unique_consecutive(log.episode, return_inverse=True)[1]
        length = episode_lengths(log)
        step = torch.arange(len(number)) - (torch.cumsum(length, 0) - length)[number]
        mask = torch.zeros(len(length), int(length.max()), dtype=torch.float64)
        mask[number, step] = 1.0
        return cls(number, step, mask)

    def spread(self, column: Tensor, fill: float = 0.0) -> Tensor:
        out = torch.full_like(self.mask, fill)
        out[self.number, self.step] = column.double()
        return out


@dataclass(frozen=True)
class ToGo:
    """The value baseline: gradient-boosted trees of what is still to come, over the lowest reward,
    by observation and step."""

    model: Any

    @classmethod
    def fit(cls, log: Transitions, limits: tuple[float, float], horizon: int) -> ToGo:
        from sklearn.ensemble import HistGradientBoostingRegressor

        grid, low = Grid.of(log), min(limits[0], 0.0)
        shifted = grid.spread(log.reward) - low * grid.mask
        to_go = shifted.flip(1).cumsum(1).flip(1)
        left = horizon - 1 - (grid.mask.sum(1, keepdim=True) - 1).expand_as(to_go)
        y = (to_go - low * left)[grid.number, grid.step]
        model = HistGradientBoostingRegressor(max_iter=60, random_state=0)
        return cls(model.fit(_inputs(log, grid), y.numpy()))

    def of(self, log: Transitions) -> Float[Tensor, "N"]:
        return torch.from_numpy(self.model.predict(_inputs(log, Grid.of(log))))


def _inputs(log: Transitions, grid: Grid) -> np.ndarray:
    return torch.cat([flat(log.obs), grid.step[:, None].double()], 1).numpy()


def step_range(
    log: Transitions, stated: tuple[float, float] | None, env: str | None
) -> RewardRange:
    """The range of a step's reward: stated, the environment's, two values (or one), observed."""
    low, high = float(log.reward.min()), float(log.reward.max())
    if stated is not None:
        with_an_end(*stated)
    known = stated or (known_rewards(env) if env else None)
    if known is not None:
        lo, hi = float(known[0]), float(known[1])
        slack = 1e-5 * max(abs(lo), abs(hi))
        if not lo < hi or low < lo - slack or high > hi + slack:
            raise InputError(
                f"rewards of the log lie in [{low:g}, {high:g}], outside [{lo:g}, {hi:g}]; "
                "state the range of every reward of a step: --reward-range LO HI"
            )
        return RewardRange(min(lo, low), max(hi, high), "stated")
    values = torch.unique(log.reward)
    if len(values) <= 2:
        named = " and ".join(f"{v:g}" for v in values.tolist())
        return RewardRange(low, high, "two-valued", f"a step's reward is never other than {named}")
    text = f"no step's reward lies outside the observed range [{low:g}, {high:g}]"
    return RewardRange(low, high, "observed", text)


def horizon_of(log: Transitions, task: Any) -> int:
    """The most steps of an episode: as the task or the log states it, or as it was seen."""
    stated = getattr(getattr(task, "spaces", None), "horizon", None)
    return max(int(episode_lengths(log).max()), int(stated or log.about.spaces.get("horizon", 0)))
