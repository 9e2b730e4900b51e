"""ResiP: a small correction of every action of a frozen policy, learned by PPO from its reward."""

from __future__ import annotations

from dataclasses import replace

from surpass.forms import Stage, Stages, Transform
from surpass.methods.online.policy_gradients import ppo
from surpass.policies.residual import correction
from surpass.registry import system
from surpass.tasks.transformed import residual_actions

__all__ = ["resip"]


@system("resip")
def resip(
    scale: float = 0.1, execute: int = 1, log_std: float = -1.0, eps: float = 0.2,
    gamma: float = 0.999, lam: float = 0.95, lr: float = 3e-4, envs: int = 8, horizon: int = 256,
    epochs: int = 10, minibatches: int = 32, hidden: tuple[int, ...] = (256, 256),
    steps: int = 200_000,
) -> Stages:  # fmt: skip
    """a = a_base + scale rho, rho ~ N(m(s, a_base), e^-2) by PPO, m = 0 at first; hand in the
    frozen
    net as `base`."""
    learner = ppo(
        eps, lam, gamma, lr=lr, envs=envs, horizon=horizon, epochs=epochs,
        minibatches=minibatches, max_norm=1.0, hidden=hidden,
    )  # fmt: skip
    learner = replace(learner, nets={**learner.nets, "policy": correction(hidden, log_std)})
    around = Transform(residual_actions("base", scale, execute), into="task")
    return Stages((Stage(around), Stage(learner, steps)))
