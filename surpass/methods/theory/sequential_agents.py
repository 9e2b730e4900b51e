"""Several agents toward their joint optimum, each seeing what those before it chose."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.sequential_agents import (
    independent_step,
    joint_policy,
    product_policy,
    sequential_step,
)
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.tabular import TabularMDP

__all__ = ["Together", "mappo_global", "mappo_independent", "proximal_agents"]


class Together(NamedTuple):
    """The joint policy [S, A], A all joint actions; the agents' own, as in
    `surpass.objectives.sequential_agents`; and the value after each iteration."""

    pi: Tensor
    agents: list[Tensor]
    values: list[float]


@part
def proximal_agents(
    model: TabularMDP, /, actions: tuple[int, ...] = (), beta: float = 1.0, iterations: int = 1000,
    sequential: bool = True, doubt: Any = 0.0, start: float = 0.0, seed: int = 0,
) -> Together:  # fmt: skip
    """Exact values, less `doubt` [S, A] at every step, and one proximal step of all agents, again
    and again.

    Args:
        actions: how many each agent has; their product is the model's. sequential: agents see
            those before them. start: the deviation of the logits of the first policy.
    """
    sizes = tuple(actions)
    if torch.Size(sizes).numel() != model.n_actions:
        raise InputError(
            f"agents of {sizes} actions have {torch.Size(sizes).numel()} joint actions; this "
            f"problem has {model.n_actions}"
        )
    if model.horizon is not None:
        raise InputError("agents plan in a discounted problem, without a horizon")
    g, S = torch.Generator().manual_seed(seed), model.n_states
    shapes = [sizes[: m + 1] if sequential else sizes[m : m + 1] for m in range(len(sizes))]
    agents = [(start * torch.randn(S, *shape, generator=g, dtype=torch.float64)).softmax(-1)
              for shape in shapes]  # fmt: skip
    joint, step = (
        (joint_policy, sequential_step) if sequential else (product_policy, independent_step)
    )
    feared = TabularMDP(model.P, model.r - doubt, model.d0, model.gamma, terminal=model.terminal)
    values = []
    for _ in range(iterations):
        found = feared.evaluate(joint(agents).reshape(S, -1))
        values.append(float(found.value))
        agents = step(agents, found.q.reshape(S, *sizes), beta)
    return Together(joint(agents).reshape(S, -1), agents, values)


@system("mappo-global")
def mappo_global(
    actions: tuple[int, ...], beta: float = 1.0, iterations: int = 1000, doubt: Any = 0.0,
    start: float = 0.0, seed: int = 0,
) -> Planner:  # fmt: skip
    """pi_m ~ pi_m exp(Q^{1:m} / beta) for agents in order, which ends at the joint optimum.

    This is the paper's ideal update on tables; with clipped ratios and nets it is not here.

    Args:
        actions: of each agent. beta: of the proximal step; beta sqrt(iterations) in the paper's
            bound. doubt: [S, A] taken off every reward, such as c sqrt(log / n) of a log's counts:
            the pessimistic form. start, seed: of random first policies.
    """
    return Planner(proximal_agents(actions, beta, iterations, True, doubt, start, seed))


@system("mappo-global:independent")
def mappo_independent(
    actions: tuple[int, ...], beta: float = 1.0, iterations: int = 1000, doubt: Any = 0.0,
    start: float = 0.0, seed: int = 0,
) -> Planner:  # fmt: skip
    """Agents that do not see each other: natural policy gradients of a product policy."""
    return Planner(proximal_agents(actions, beta, iterations, False, doubt, start, seed))
