"""The last word on a policy for control: episodes in its environment, against the reference's.

With a reference that can act, both play the same seeds and the differences of returns are paired.
Without one, the reference's returns are those of logged episodes, in random pairs: that needs the
log to come from this environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.evaluation.guarded import Bounds, guarded_bounds, guarded_p
from surpass.improve.episode_candidates import n_actions_of
from surpass.objectives.episode_gain import span
from surpass.tasks.protocol import VectorEnv

__all__ = ["Confirmation", "confirm", "known_rewards", "open_env", "returns"]

_REWARDS: dict[str, tuple[float, float]] = {
    "CartPole": (0.0, 1.0), "cart-pole": (0.0, 1.0),
    "Pendulum": (-16.2736045, 0.0), "pendulum": (-16.2736045, 0.0),
    "Acrobot": (-1.0, 0.0), "acrobot": (-1.0, 0.0),
    "MountainCarContinuous": (-0.1, 100.0), "mountain-car": (-0.1, 100.0),
    "MountainCar": (-1.0, 0.0),
    "point": (-9.8995, 0.0),  # 1 + 60 steps of at most 0.1 in each direction
}  # fmt: skip
"""Rewards of a step that an environment can pay, by its equations."""


@dataclass(frozen=True)
class Confirmation:
    """What episodes in the environment say.

    Attributes:
        bounds: of the gain. p, p_worse: guarded p-values of "no better" and of "no worse", both
            against the margin. returns, against: of candidate and reference, per pair.
        paired: whether both played the same seeds.
    """

    bounds: Bounds
    p: float
    p_worse: float
    returns: Tensor
    against: Tensor
    paired: bool


def known_rewards(env: str) -> tuple[float, float] | None:
    """The range of a step's reward, where the environment's equations give it."""
    return _REWARDS.get(env) or _REWARDS.get(env.split("-v")[0])


def open_env(env: str, log: Transitions) -> Any:
    """The task of that name, checked to have the log's observations and actions.

    Raises:
        InputError: when it is unknown, or does not fit the log.
    """
    from surpass.tasks.catalog import task

    found = task(env)
    spaces = getattr(found, "spaces", None)
    if spaces is None:
        raise InputError(f"{env} is no environment; give a control task or a Gymnasium id")
    ours = (
        log.obs.reshape(len(log.obs), -1).shape[1],
        n_actions_of(log),
        0 if n_actions_of(log) else log.action.shape[1],
    )
    theirs = (spaces.obs_dim, spaces.n_actions, spaces.action_dim)
    words = ("observation numbers", "discrete actions", "action numbers")
    for a, b, word in zip(ours, theirs, words, strict=True):
        if a != b:
            raise InputError(f"{env} has {b} {word}, the log {a}; give the log's own environment")
    return found


@torch.no_grad()
def returns(
    task: Any, act: Callable[[Tensor], Tensor], episodes: int, *, seed: int = 0, gamma: float = 1.0
) -> Tensor:
    """The return of one episode in each of `episodes` copies, [n]; the same seed gives the same
    starts."""
    env: VectorEnv = task.make(episodes, seed=seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            obs = env.reset(seed)
            total = torch.zeros(episodes, dtype=torch.float64)
            alive = torch.ones(episodes, dtype=torch.bool)
            most, t = env.spaces.horizon or 100_000, 0
            while bool(alive.any()) and t < most:
                action = act(obs)
                if action.is_floating_point():
                    low, high = (torch.tensor(b) for b in (env.spaces.low, env.spaces.high))
                    action = torch.minimum(torch.maximum(action.float(), low), high)
                after = env.step(action)
                total += alive * gamma**t * after.reward.double()
                alive = alive & ~(after.terminated | after.truncated)
                obs, t = after.obs, t + 1
    finally:
        env.close()
    return total


def confirm(
    task: Any,
    act: Callable[[Tensor], Tensor],
    reference: Callable[[Tensor], Tensor] | Tensor,
    limits: tuple[float, float],
    *,
    horizon: int,
    episodes: int = 200,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    gamma: float = 1.0,
) -> Confirmation:
    """Play, and test the gain with the guarded test.

    Args:
        reference: a policy, which plays the same seeds; or the returns of logged episodes.
        limits: lowest and highest reward of a step. horizon: the most steps of an episode.
    """
    if isinstance(reference, Tensor):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(reference)))
        against = reference[order[:episodes]].double()
        paired = False
    else:
        against = returns(task, reference, episodes, seed=seed, gamma=gamma)
        paired = True
    earned = returns(task, act, len(against), seed=seed, gamma=gamma)
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    width = (high - low) * span(gamma, horizon)
    difference = (earned - against).numpy()
    worst = -width
    if float(np.abs(difference).max()) > width:
        raise InputError(
            f"two returns differ by {float(np.abs(difference).max()):g}, more than rewards in "
            f"[{limits[0]:g}, {limits[1]:g}] allow in {horizon} steps; state the range of every "
            "reward that may occur"
        )
    return Confirmation(
        bounds=guarded_bounds(difference, worst, -worst, level),
        p=guarded_p(difference - margin, worst - margin),
        p_worse=guarded_p(margin - difference, worst + margin),
        returns=earned, against=against, paired=paired,
    )  # fmt: skip
