"""Evidence of small corrections around a frozen policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.forms import Learner, adam, log, train
from surpass.methods.generative.residual import resip
from surpass.methods.online.policy_gradients import ppo
from surpass.objectives.chunks import chunk_clone
from surpass.parts import cosine
from surpass.policies.acting import sampled
from surpass.policies.flow import flow
from surpass.tasks.catalog import ControlTask
from surpass.tasks.point import Controller, PointMass, point_log
from surpass.tasks.protocol import State, Step
from surpass.training.run import train as fit

CHUNK, STEPS = 4, 40_000


@dataclass(frozen=True)
class Reach(PointMass):
    """POINT, paid 1 once, where it comes within 0.04 of the goal at a speed below 0.08."""

    horizon: int = 40

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step; coming to rest at the goal terminates."""
        after = super().step(state, action, noise)
        near = after.obs[:, :2].norm(dim=-1) < 0.04
        slow = after.obs[:, 2:].norm(dim=-1) < 0.08
        there = near & slow
        return Step(after.state, after.obs, there.float(), there, after.truncated & ~there)


TASK: Any = ControlTask("reach", "come to rest at the goal", Reach())


def frozen_chunks(seed: int) -> Any:
    """A flow over chunks of 4 actions, cloned from noisy demonstrations with wrong aims."""
    demos = point_log(Controller(wander=0.25, noise=0.15), 6_000, seed)
    form = Learner(
        nets={"pi": flow(6, 48, 2, expansion=2, chunk=CHUNK)},
        update=(train("pi", chunk_clone(), adam(cosine(2e-3, 1e-4, steps=800))),),
        act=sampled(), source=log(128, "segments", n=CHUNK, whole=True),
    )  # fmt: skip
    return fit(form, demos, steps=800, seed=seed, compile=False).nets["pi"]


def success(policy: Any, task: Any = TASK, episodes: int = 200) -> float:
    """Percent of episodes that come to rest at the goal."""
    env = task.make(episodes, seed=10_000)
    obs, memory = env.reset(10_000), None
    alive, won = torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes)
    for _ in range(Reach().horizon):
        acted = policy.act(obs, memory)
        after = env.step(acted.action)
        won = won + (alive & after.terminated).float()
        done = after.terminated | after.truncated
        alive, obs = alive & ~done, after.obs
        memory = policy.remember(acted.memory, after.reward, done)
    return 100 * float(won.mean())


@evidence(
    "resip",
    claim="a small correction of every action of a frozen chunked policy, learned from a sparse "
    "reward, raises its success by 20 points, where the same algorithm from scratch finds nothing",
    setting="POINT, to come to rest within 0.04 of the goal; a flow over 4 actions cloned from 100 "
    "noisy episodes with wrong aims; 40,000 steps of PPO, corrections up to 0.3",
    baseline="the frozen policy",
    metric="success in percent", bar=at_least(20.0), seeds=10, minutes=2,
)  # fmt: skip
def resip_evidence(seed: int, zoo: Any) -> Result:
    base = frozen_chunks(seed)
    hyper: dict[str, Any] = {"envs": 32, "horizon": 64, "epochs": 4, "minibatches": 4,
                             "lr": 1e-3, "hidden": (48, 48), "gamma": 0.99}  # fmt: skip
    form = resip(scale=0.3, execute=CHUNK, steps=STEPS, **hyper)
    ours = fit(form, task=TASK, base=base, seed=seed, compile=False)
    still = resip(scale=0.0, execute=CHUNK, steps=STEPS, **hyper)
    start = fit(still, task=TASK, base=base, steps=1, seed=seed, compile=False)
    scratch = fit(ppo(**hyper), task=TASK, steps=STEPS, seed=seed, compile=False)
    torch.manual_seed(seed)
    reached = success(ours.policy)
    return Result(
        reached, success(start.policy),
        {"success of PPO from scratch": (reached, success(scratch.policy), at_least(20.0))},
    )  # fmt: skip
