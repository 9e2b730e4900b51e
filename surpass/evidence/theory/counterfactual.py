"""Evidence for the nearest policy of a chosen return: cart-pole."""

from __future__ import annotations

import copy
from typing import Any

import torch

from surpass.evaluation.changes import changes
from surpass.evaluation.rollouts import roll_out
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.online.policy_gradients import ppo
from surpass.methods.theory.counterfactual import counterpol
from surpass.policies.acting import InEnvironment, NetPolicy
from surpass.tasks.catalog import task
from surpass.training.run import train

# The weight is the best of 0.001, 0.003 and 0.01 that hits its targets on three seeds apart.
TARGETS, NEAR, WEIGHT = (100.0, 250.0, 400.0), 20.0, 0.003


def drawing(net: Any) -> InEnvironment:
    """The net, drawing its actions."""
    return InEnvironment(NetPolicy(net.sample), task("cart-pole").spaces)


def worth(net: Any, seed: int = 10_000) -> float:
    """The mean return of 256 episodes."""
    torch.manual_seed(seed)
    return roll_out(drawing(net), task("cart-pole"), 256, seed=seed).mean


def half_skilled(seed: int) -> Any:
    """PPO's net once its episodes last 150 to 300 steps."""

    def seen(step: int, notes: dict[str, float], trained: Any) -> bool:
        return 150 < notes.get("episode.return", 0.0) < 300

    form = ppo(envs=8, horizon=128, lr=1e-3, epochs=4, minibatches=4)
    made = train(form, task=task("cart-pole"), steps=60_000, seed=seed, callback=seen,
                 log_every=16, compile=False)  # fmt: skip
    return made.nets["policy"]


def toward(net: Any, target: float, weight: float, seed: int) -> Any:
    """Trained until the last two batches of 64 episodes are near the target on average; at most 60
    batches."""
    last: list[float] = []

    def seen(step: int, notes: dict[str, float], trained: Any) -> bool:
        if "episode.return" in notes:
            last.append(notes["episode.return"])
        near = len(last) > 2 and abs(sum(last[-2:]) / 2 - target) < NEAR / 2
        return near or len(last) >= 60

    made = train(counterpol(target, weight=weight, lr=1e-3, batch=64), task=task("cart-pole"),
                 policy=copy.deepcopy(net), steps=2_000_000, seed=seed, callback=seen, log_every=1,
                 compile=False)  # fmt: skip
    return made.nets["policy"]


@evidence(
    "counterpol",
    claim="the policy that the penalty finds for a chosen return is nearer to where it started "
    "than what the return alone finds, and changed in few states",
    baseline="the same descent without the penalty",
    metric="KL(start || found) on the start's states, the mean over three targets, nats",
    bar=at_most(0.6, times=True), seeds=5, minutes=3.0,
    setting="cart-pole, a policy of 150 to 300 steps and the targets 100, 250 and 400.",
    note="On every seed nearer, by 23 percent on average (-2 to 42), not by 40: descent that stops "
    "at the target takes a short way without a penalty, too, and a larger one misses targets.",
)  # fmt: skip
def counterpol_evidence(seed: int, zoo: Any) -> Result:
    """Also: how many targets are hit (within 20 or 5 percent), and where the change is."""
    start = half_skilled(seed)
    states: list[torch.Tensor] = []
    actor = drawing(start)

    def act(obs: torch.Tensor) -> torch.Tensor:
        states.append(obs)
        return actor.act(obs).action

    roll_out(act, task("cart-pole"), 64, seed=seed)
    obs = torch.cat(states)
    with torch.no_grad():
        before = start.logits(obs)
        found: dict[float, list[Any]] = {}
        for weight in (WEIGHT, 0.0):
            nets = [toward(start, target, weight, seed) for target in TARGETS]
            found[weight] = [(worth(n), changes(before, n.logits(obs))) for n in nets]
    far = [sum(float(c.divergence.mean()) for _, c in found[w]) / 3 for w in (WEIGHT, 0.0)]
    hit = [100 * sum(abs(j - t) <= max(NEAR, 0.05 * t)
                     for (j, _), t in zip(found[w], TARGETS, strict=True)) / len(TARGETS)
           for w in (WEIGHT, 0.0)]  # fmt: skip
    held = [100 * sum(c.share() for _, c in found[w]) / len(TARGETS) for w in (WEIGHT, 0.0)]
    return Result(
        far[0], far[1],
        also={"percent of targets hit": (hit[0], hit[1], at_least(80.0, alone=True)),
              "percent of the divergence in a fifth of the states": (
                  held[0], held[1], at_least(50.0, alone=True))},
    )  # fmt: skip
