"""Mirror learning with drifts: PPO whose clip is replaced, by one that was discovered, or by one
that evolution strategies find over whole lifetimes of agents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Planner, PolicyGradient, adam
from surpass.methods.online.policy_gradients import ppo
from surpass.objectives.drift import FEATURES, MARGIN, clipped_away, discovered, drift_net, learned
from surpass.objectives.drift import mirror as mirrored
from surpass.objectives.views import Steps
from surpass.parts import Part, part
from surpass.registry import system
from surpass.tasks.protocol import Simulator
from surpass.training.evolution import OpenES, evolve
from surpass.training.lifetimes import Lifetime

__all__ = ["Evolved", "evolved_drift", "learned_policy", "mirror_learning"]


@system("lpo-dpo")
def mirror_learning(
    drift: Part[[Steps], Tensor] = discovered(), lam: float = 0.95, gamma: float = 0.99,
    entropy: float = 0.0, lr: float = 3e-4, envs: int = 8, horizon: int = 256, epochs: int = 10,
    minibatches: int = 32, normalize: bool = False, hidden: tuple[int, ...] = (64, 64),
) -> PolicyGradient:  # fmt: skip
    """r A - f(r, A), f the discovered drift or another: `clipped_away()` is PPO, and what
    `lpo-dpo:lpo` gives fits too."""
    form = ppo(0.2, lam, gamma, entropy, lr, envs, horizon, epochs, minibatches,
               normalize=normalize, hidden=hidden)  # fmt: skip
    if entropy:
        return replace(form, trust=mirrored(drift) + form.trust.second)
    return replace(form, trust=mirrored(drift))


# ----------------------------------------------------------------------------------------------
# learned


@dataclass(frozen=True)
class Evolved:
    """What a search found: the drift, a part that any recipe with a trust rule takes, and the mean
    and best score of every generation."""

    drift: Part[[Steps], Tensor]
    history: list[dict[str, float]] = field(default_factory=list)


@part
def evolved_drift(
    task: Simulator, /, population: int = 32, generations: int = 100, sigma: float = 0.1,
    lr: float = 0.02, hidden: int = 128, start: float = 0.0, life: Lifetime = Lifetime(),
    seed: int = 0,
) -> Evolved:  # fmt: skip
    """OpenES over the weights of a learned drift; a score is the mean return of a lifetime in a
    simulator (or a task that has one), new luck every generation.

    Raises:
        InputError: when the task has no simulator that many agents can live in at once.
    """
    simulator: Any = getattr(task, "simulator", task)
    if not hasattr(simulator, "reset") or not hasattr(simulator, "noise_dim"):
        raise InputError("lifetimes need a batched simulator: a task of surpass tasks list")
    g = torch.Generator().manual_seed(seed)
    into = torch.randn(hidden * FEATURES, generator=g) / FEATURES**0.5
    first = torch.cat([into, torch.zeros(hidden)])  # f = 0, or the drift of PPO, to begin with
    strategy = OpenES(first, population, sigma, adam(lr), seed)

    def objective(flat: Tensor, s: Steps) -> Tensor:
        inner = drift_net(flat, s.log_ratio, s.advantage)
        inner = inner + clipped_away(start, start)(s) if start > 0 else inner
        return torch.relu(inner - MARGIN) - s.log_ratio.exp() * s.advantage

    history: list[dict[str, float]] = []
    found = evolve(
        strategy, lambda many, k: life.run(simulator, objective, many, seed=1_000 * seed + k),
        generations, lambda k, numbers: history.append(numbers),
    )  # fmt: skip
    return Evolved(learned(tuple(found.tolist()), hidden, start), history)


@system("lpo-dpo:lpo")
def learned_policy(
    population: int = 32, generations: int = 100, sigma: float = 0.1, lr: float = 0.02,
    hidden: int = 128, start: float = 0.0, seed: int = 0, envs: int = 16, horizon: int = 32,
    updates: int = 20,
) -> Planner:  # fmt: skip
    """LPO: `.solve(task)` gives the drift under which agents live best; `start` > 0 begins at the
    drift of PPO of that range."""
    life = Lifetime(envs, horizon, updates)
    return Planner(evolved_drift(population, generations, sigma, lr, hidden, start, life, seed))
