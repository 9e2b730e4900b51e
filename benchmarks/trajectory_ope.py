"""Off-policy evaluation of episodes against the truth: how it ranks ten policies on pendulum and on
a tabular task, what bias and coverage the estimators have there and on a linear-quadratic problem
(closed form), and how long fitted Q evaluation of a Hopper-sized policy takes. Ends in one JSON
line.

    python benchmarks/trajectory_ope.py [--logs 40] [--steps 20000] [--only tabular hopper]

About fifteen minutes on one core with everything in it.
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

from surpass.critics.dynamics import DynamicsNets
from surpass.critics.fitted_values import fit_values
from surpass.critics.policy_values import ValueNets
from surpass.data.records import About, Transitions
from surpass.evaluation.trajectories import evaluate_trajectories
from surpass.forms import Estimator
from surpass.methods.ope.trajectories import fqe_nets, model_based
from surpass.registry import build
from surpass.tasks.control import Pendulum
from surpass.tasks.protocol import Batched
from surpass.tasks.recording import record
from surpass.tasks.worlds import random_mdp

GAMMA = 0.98
ESTIMATORS = ("pdis", "snpdis", "drt", "sndrt", "fqe", "mwl", "drl", "star-arp", "model-based")
PARTS = ("tabular", "quadratic", "pendulum", "hopper")
NETS = ValueNets(3, (64, 64), 2_500, 256, 2e-3)
WORLD = DynamicsNets(3, (64, 64), 1_500, 256, 2e-3)


def controller(push: float, turn: float, aim: float) -> Callable[[Tensor], Tensor]:
    """Pump energy while low, and hold with a linear law near the top."""

    def act(obs: Tensor) -> Tensor:
        cos, sin, speed = obs.double().unbind(-1)
        energy = 0.5 * speed.square() + 15.0 * (cos - 1.0)
        swing = -push * energy * speed.sign()
        hold = -(turn * (torch.atan2(sin, cos) - aim) + 2.0 * speed)
        return torch.where(cos > 0.9, hold, swing).clamp(-2.0, 2.0)[:, None]

    return act


def pendulum(steps: int, seed: int) -> dict[str, dict[str, float]]:
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
    truth = [played(policy) for policy in policies]

    def linear(policy: Callable[[Tensor], Tensor]) -> float:
        return float(fit_values(log, policy, gamma=GAMMA).value(log.obs[first]).mean())

    def by(key: str, form: Estimator) -> Callable[[Callable[[Tensor], Tensor]], float]:
        return lambda policy: (
            evaluate_trajectories(policy, log, gamma=GAMMA, estimators={key: form}, seed=seed)[
                key
            ].value
        )

    ways = {"fqe, random features": linear, "fqe-nets": by("fqe-nets", fqe_nets(NETS)),
            "model-based": by("model-based", model_based(WORLD))}  # fmt: skip
    out = {}
    for name, way in ways.items():
        begun = time.perf_counter()
        found = [way(policy) for policy in policies]
        out[name] = {
            "spearman": float(spearmanr(found, truth).statistic),
            "bias": float(torch.tensor(found).mean() - torch.tensor(truth).mean()),
            "seconds": (time.perf_counter() - begun) / len(policies),
        }
        print(f"pendulum  {name:22s}" + _row(out[name]), flush=True)
    return out


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


def quadratic(logs: int, seed: int) -> dict[str, dict[str, float]]:
    """s' = 0.9 s + 0.5 a + 0.1 noise, r = -(s^2 + 0.1 a^2), uniform actions, 100 episodes of ten
    steps, all cut; a = -0.6 s is worth - p s_0^2 - gamma p 0.01 / (1 - gamma), p = 1.036 / (1 -
    0.36 gamma)."""
    gamma, episodes, steps = 0.9, 100, 10
    p = 1.036 / (1 - 0.36 * gamma)
    truth = -p / 3 - gamma * p * 0.01 / (1 - gamma)  # starts uniform in [-1, 1]
    out: dict[str, dict[str, float]] = {}
    for key, form in {"fqe-nets": fqe_nets(NETS), "model-based": model_based(WORLD)}.items():
        found = []
        for at in range(logs):
            g = torch.Generator().manual_seed(1000 * seed + at)
            s = 2 * torch.rand(episodes, generator=g) - 1
            rows = []
            for _ in range(steps):
                a = 2 * torch.rand(episodes, generator=g) - 1
                then = 0.9 * s + 0.5 * a + 0.1 * torch.randn(episodes, generator=g)
                rows.append(torch.stack((s, a, -(s.square() + 0.1 * a.square()), then), -1))
                s = then
            table = torch.stack(rows, 1).flatten(0, 1)
            log = steps_of(table[:, :1], table[:, 1:2], table[:, 2], table[:, 3:], steps)
            found.append(evaluate_trajectories(lambda obs: -0.6 * obs, log, gamma=gamma,
                                               estimators={key: form}, seed=at)[key])  # fmt: skip
        values = torch.tensor([r.value for r in found])
        out[key] = {
            "truth": truth,
            "bias": float(values.mean()) - truth,
            "bias_error": float(values.std()) / math.sqrt(max(logs, 1)),
            "coverage": sum(r.low <= truth <= r.high for r in found) / max(logs, 1),
        }
        print(f"quadratic {key:22s}" + _row(out[key]), flush=True)
    return out


def steps_of(
    obs: Tensor, action: Tensor, reward: Tensor, then: Tensor, length: int, ended: float = 0.0
) -> Transitions:
    """Rows of episodes of one length; a share `ended` of them ends, the others are cut."""
    place = torch.arange(len(obs))
    last = place % length == length - 1
    done = last & (place // length % 100 < 100 * ended)
    return Transitions(
        obs=obs, action=action, reward=reward, next_obs=then, terminated=done,
        truncated=last & ~done, episode=place // length, batch_size=[len(obs)],
    ).described(About(spaces={"action_low": -1.0, "action_high": 1.0}))  # fmt: skip


def hopper(seed: int) -> dict[str, float]:
    """Seconds of fitted Q evaluation as `surpass evaluate` runs it, on 100,000 transitions of
    Hopper's size (11 observations, 3 actions), compiling included."""
    g = torch.Generator().manual_seed(seed)
    n = 100_000
    obs, act = torch.randn(n, 11, generator=g), 2 * torch.rand(n, 3, generator=g) - 1
    then = 0.9 * obs + 0.1 * torch.randn(n, 11, generator=g)
    then[:, :3] += 0.3 * act
    log = steps_of(obs, act, 1 + 0.1 * obs[:, 0], then, 200, ended=0.7)
    out = {}
    for key in ("fqe-nets", "model-based"):
        begun, used = time.perf_counter(), time.process_time()
        evaluate_trajectories(lambda o: o[:, :3].tanh(), log, gamma=0.99, estimators=(key,))
        out[f"{key} seconds"] = time.perf_counter() - begun
        out[f"{key} processor seconds"] = time.process_time() - used
    out["threads"] = float(torch.get_num_threads())
    print("hopper    " + _row(out), flush=True)
    return out


def _row(numbers: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.3f}" for k, v in numbers.items())


def main() -> None:
    """Run the parts and print."""
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--logs", type=int, default=40, help="of bias and coverage, tabular")
    asked.add_argument("--net-logs", type=int, default=12, help="of the same, nets")
    asked.add_argument("--steps", type=int, default=20_000, help="of pendulum's log")
    asked.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    out: dict[str, object] = {"logs": given.logs}
    if "tabular" in given.only:
        table = tabular(given.logs, given.seed)
        for key, row in table.items():
            print(f"tabular   {key:22s}" + _row(row), flush=True)
        out["tabular"] = table
    if "quadratic" in given.only:
        out["quadratic"] = quadratic(given.net_logs, given.seed)
    if "pendulum" in given.only:
        out["pendulum"] = pendulum(given.steps, given.seed)
    if "hopper" in given.only:
        out["hopper"] = hopper(given.seed)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
