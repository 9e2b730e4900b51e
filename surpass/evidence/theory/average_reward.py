"""Evidence for control in average reward: a linear system, and a pendulum that is never reset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from surpass.evaluation.rollouts import roll_out
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.online.actor_critic import td3
from surpass.methods.online.policy_gradients import ppo
from surpass.methods.theory.average_reward import aro_ddpg
from surpass.objectives.advantage import whitened
from surpass.objectives.average_reward import centered_gae
from surpass.tasks.catalog import task
from surpass.tasks.linear_quadratic import LinearQuadratic
from surpass.training.run import train

STEPS, LONG = 24_000, 10_000
SIZES: dict[str, Any] = {"batch": 128, "warm": 1_000, "per_step": 0.5, "hidden": (64, 64)}


def earned(trained: Any, name: str, seed: int) -> float:
    """The mean reward per step over 4 x 10,000 steps."""
    return roll_out(trained, task(name, horizon=LONG), 4, seed=10_000 + seed).mean / LONG


def on_policy(lr: float = 1e-3) -> Any:
    """PPO with the advantage in average reward."""
    form = ppo(lr=lr, envs=8, horizon=250, epochs=10, minibatches=8)
    return replace(form, advantage=whitened(centered_gae()))


@evidence(
    "aro-ddpg",
    claim="on a pendulum that is never reset, it earns at least 15 percent of the range more per "
    "step than on-policy learning in average reward from as many steps, and at most 5 percent less "
    "than TD3; on a linear system it comes within 3 percent of the optimum",
    baseline="PPO whose advantage is that of the average reward; the best rate of three for each, "
    "on seeds 100 to 102",
    metric="reward per step over 4 x 10,000 steps, in parts of the range from that of a pendulum "
    "at rest (-9.87) to 0",
    bar=at_least(0.15), seeds=5, minutes=6.0,
    setting="24,000 steps on the pendulum, half as many updates of 128 rows, nets of 64 and 64; "
    "12,000 steps of the linear system",
)  # fmt: skip
def average_reward_evidence(seed: int, zoo: Any) -> Result:
    """Also: where the learned rate ends."""
    swing: dict[str, Any] = {"task": task("pendulum", horizon=1_000_000), "seed": seed}
    arms = (aro_ddpg(lr=1e-3, **SIZES), on_policy(), td3(lr=1e-3, **SIZES))
    ours, theirs, discounted = (
        share(earned(train(form, steps=STEPS, **swing), "pendulum", seed)) for form in arms
    )
    best = LinearQuadratic().best
    held = train(aro_ddpg(lr=1e-3, **SIZES), task=task("linear-quadratic"), steps=12_000, seed=seed)
    reached = earned(held, "linear-quadratic", seed)
    with torch.no_grad():
        rate = float(held.nets["rho"]())
    return Result(
        ours, theirs,
        also={"reward per step, against TD3": (ours, discounted, at_least(-0.05)),
              "cost of the linear system, over the optimum's": (
                  reached, best, at_most(1.03, times=True)),
              "the rate that was learned, over what is earned": (
                  abs(rate / reached - 1.0), 0.0, at_most(0.02, alone=True))},
    )  # fmt: skip


def share(reward: float) -> float:
    """A pendulum's reward per step, 0 where it hangs at rest and 1 where nothing is lost."""
    return 1.0 + reward / np.pi**2
