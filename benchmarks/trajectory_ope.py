"""Off-policy evaluation of episodes: how it ranks ten policies, what bias and coverage it has, and
how long fitted Q evaluation takes. Ends in one JSON line.

    python benchmarks/trajectory_ope.py [--logs 40] [--steps 20000]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import torch
from scipy.stats import spearmanr
from torch import Tensor

from surpass.critics.fitted_values import fit_values
from surpass.evaluation.trajectories import evaluate_trajectories
from surpass.registry import build
from surpass.tasks.control import Pendulum
from surpass.tasks.protocol import Batched
from surpass.tasks.recording import record
from surpass.tasks.worlds import random_mdp

GAMMA = 0.98
ESTIMATORS = ("pdis", "snpdis", "drt", "fqe", "mwl", "drl")


def controller(push: float, turn: float, aim: float) -> Callable[[Tensor], Tensor]:
    """Pump energy while low, and hold with a linear law near the top."""

    def act(obs: Tensor) -> Tensor:
        cos, sin, speed = obs.double().unbind(-1)
        energy = 0.5 * speed.square() + 15.0 * (cos - 1.0)
        swing = -push * energy * speed.sign()
        hold = -(turn * (torch.atan2(sin, cos) - aim) + 2.0 * speed)
        return torch.where(cos > 0.9, hold, swing).clamp(-2.0, 2.0)[:, None]

    return act


def pendulum(steps: int, seed: int) -> dict[str, float]:
    """Ten controllers, ranked from a log of noisy ones, against what they earn."""
    generator = torch.Generator().manual_seed(seed)
    grid = [(0.02, 0.0, 0.0), (0.05, 2.0, 0.0), (0.1, 4.0, 0.0), (0.2, 8.0, 0.0), (0.4, 10.0, 0.0)]
    grid += [(-0.1, 8.0, 0.0), (0.0, 0.0, 0.0), (0.2, 8.0, 0.3), (0.2, -4.0, 0.0), (0.1, 10.0, 0.1)]
    policies = [controller(*g) for g in grid]

    def behave(obs: Tensor) -> Tensor:
        which = torch.randint(len(policies), (len(obs),), generator=generator)
        each = torch.stack([p(obs) for p in policies])[which, torch.arange(len(obs))]
        noise = 4.0 * torch.rand(len(obs), 1, generator=generator) - 2.0
        mixed = torch.rand(len(obs), 1, generator=generator) < 0.3
        return torch.where(mixed, noise, each).float()

    log = record(Batched(Pendulum(), 50, seed=seed), behave, steps, seed=seed)
    first = torch.ones(len(log.reward), dtype=torch.bool)
    first[1:] = log.episode[1:] != log.episode[:-1]
    found, truth, took = [], [], []
    for policy in policies:
        begun = time.perf_counter()
        values = fit_values(log, policy, gamma=GAMMA)
        found.append(float(values.value(log.obs[first]).mean()))
        took.append(time.perf_counter() - begun)
        truth.append(played(policy))
    return {
        "spearman": float(spearmanr(found, truth).statistic),
        "fqe_seconds": sum(took) / len(took),
    }


def played(policy: Callable[[Tensor], Tensor], copies: int = 500) -> float:
    """The discounted return of a policy, by playing."""
    env = Pendulum()
    state, obs = env.reset(copies, torch.Generator().manual_seed(99))
    total = torch.zeros(copies, dtype=torch.float64)
    for t in range(200):
        after = env.step(state, policy(obs).float())
        total += GAMMA**t * after.reward.double()
        state, obs = after.state, after.obs
    return float(total.mean())


def tabular(logs: int, seed: int) -> dict[str, dict[str, float]]:
    """Per estimator on a tabular task with exact values: the rank correlation over ten policies,
    and for one of them bias and coverage of the 95 % interval over repeated logs."""
    generator = torch.Generator().manual_seed(seed)
    mdp = random_mdp(8, 3, gamma=1.0, horizon=8, branching=4, generator=generator)
    mu = torch.rand(8, 3, generator=generator, dtype=torch.float64).softmax(-1)
    best = mdp.solve().pi[0]
    pis = [(1 - c) * mu + c * (best if k else 1 - best) / (1 if k else 2)
           for k in (0, 1) for c in (0.1, 0.25, 0.4, 0.55, 0.7)]  # fmt: skip
    truth = [float(mdp.evaluate(pi).value) for pi in pis]
    forms = {k: build(k) for k in ESTIMATORS}

    def run(which: list[int], at: int) -> dict[tuple[int, str], tuple[float, float, float]]:
        made = torch.Generator().manual_seed(1000 * seed + at)
        log = mdp.rollout(mu, 500, generator=made, dtype=torch.float64)
        named = {str(i): (lambda obs, pi=pis[i]: obs @ pi) for i in which}
        found = evaluate_trajectories(named, log, estimators=forms, method="normal")
        return {(int(r.policy), r.estimator): (r.value, r.low, r.high) for r in found}

    ranked = run(list(range(10)), 0)
    repeated = [run([7], at + 1) for at in range(logs)]
    out = {}
    for key in ESTIMATORS:
        order = spearmanr([ranked[i, key][0] for i in range(10)], truth).statistic
        values = torch.tensor([r[7, key][0] for r in repeated])
        inside = [r[7, key][1] <= truth[7] <= r[7, key][2] for r in repeated]
        out[key] = {
            "spearman": float(order),
            "bias": float(values.mean()) - truth[7],
            "bias_error": float(values.std()) / math.sqrt(max(logs, 1)),
            "coverage": sum(inside) / max(logs, 1),
        }
    return out


def main() -> None:
    """Run both and print."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--logs", type=int, default=40)
    asked.add_argument("--steps", type=int, default=20_000)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    table = tabular(given.logs, given.seed)
    for key, row in table.items():
        print(f"{key:8s} " + "  ".join(f"{k} {v:+.3f}" for k, v in row.items()))
    swing = pendulum(given.steps, given.seed)
    print(f"pendulum: Spearman {swing['spearman']:.3f}, {swing['fqe_seconds']:.2f} s per policy")
    print(json.dumps({"tabular": table, "pendulum": swing, "logs": given.logs}))


if __name__ == "__main__":
    main()
