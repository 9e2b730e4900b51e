"""SEABO: a log without rewards, labeled by how near an expert's trajectory every step comes."""

from __future__ import annotations

from typing import Literal

from surpass.critics.neighbors import nearest_expert
from surpass.forms import Stage, Stages, Transform
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.implicit import iql
from surpass.registry import system

__all__ = ["seabo", "seabo_td3_bc"]

Mode = Literal["sas", "sa", "ss"]


@system("seabo")
def seabo(
    alpha: float = 1.0, beta: float = 0.5, mode: Mode = "sas",
    per_action: bool = True, standardize: bool = False, shift: float = 0.0, tau: float = 0.7,
    temperature: float = 3.0, gamma: float = 0.99, polyak: float = 0.005, lr: float = 3e-4,
    batch: int = 256, hidden: tuple[int, ...] = (256, 256), steps: int = 1_000_000,
) -> Stages:  # fmt: skip
    """r = alpha exp(-beta d / |A|), d the distance to the nearest transition of the log handed in
    as `expert`; then IQL."""
    label = nearest_expert(alpha, beta, mode, per_action, standardize, shift)
    learner = iql(tau, temperature, gamma, polyak, lr, steps, batch, hidden)
    return Stages((Stage(Transform(label)), Stage(learner, steps)))


@system("seabo:td3-bc")
def seabo_td3_bc(
    alpha: float = 1.0, beta: float = 0.5, mode: Mode = "sas", per_action: bool = True,
    standardize: bool = False, shift: float = 0.0, weight: float = 2.5, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256, hidden: tuple[int, ...] = (256, 256),
    steps: int = 1_000_000,
) -> Stages:  # fmt: skip
    """The same rewards, then TD3+BC; `weight` is how much its Q counts beside cloning."""
    label = nearest_expert(alpha, beta, mode, per_action, standardize, shift)
    return Stages((Stage(Transform(label)), Stage(td3_bc(weight, gamma, lr, batch, hidden), steps)))
