"""Evidence of conservative forward-backward representations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.settings.zero_shot import conservative_fb
from surpass.tasks.point import Controller, PointMass, point_log
from surpass.tasks.protocol import State, Step
from surpass.training.run import train

CORNERS = torch.tensor([[0.9, 0.9], [0.9, -0.9], [-0.9, 0.9], [-0.9, -0.9]])


@dataclass(frozen=True)
class Arena(PointMass):
    """POINT within walls: places stay in [-1, 1]^2, and a wall stops what runs into it."""

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One step."""
        after = super().step(state, action, noise)
        p, v = after.obs[:, :2], after.obs[:, 2:]
        x = torch.cat([p.clamp(-1.0, 1.0), torch.where(p.abs() > 1.0, 0.0, v)], -1)
        return Step({**after.state, "x": x}, x, after.reward, after.terminated, after.truncated)


ENV = Arena(horizon=60)


def _told(trained: Any, log: Any, goal: torch.Tensor) -> Any:
    """The policy of the reward -distance to a corner, from the states of the log."""
    reward = -(log.next_obs[:, :2] - goal).norm(dim=-1)
    return trained.policy.given(obs=log.next_obs, reward=reward - reward.mean())


def _worth(policy: Any, goal: torch.Tensor) -> float:
    """Mean reward per step of 60 from 50 starts."""
    state, obs = ENV.reset(50, torch.Generator().manual_seed(10_000))
    total = 0.0
    for _ in range(ENV.horizon):
        after = ENV.step(state, policy.act(obs).action)
        state, obs = after.state, after.obs
        total -= float((obs[:, :2] - goal).norm(dim=-1).mean()) / ENV.horizon
    return total


def _mean(penalty: str, log: Any, seed: int) -> float:
    form = conservative_fb(penalty, alpha=0.01, d=12, lr=1e-3, actor_lr=1e-3, batch=96,
                           hidden=(48, 48))  # fmt: skip
    trained = train(form, log, steps=800, seed=seed, compile=False)
    return sum(_worth(_told(trained, log, g), g) for g in CORNERS) / len(CORNERS)


@evidence(
    "conservative-fb",
    claim="from a small log of a narrow policy, pessimism about actions off the log gives better "
    "policies for rewards told afterwards, and costs nothing on a large diverse log",
    setting="POINT within walls; rewards: minus the distance to each of four corners; narrow: "
    "2,400 rows of noisy controllers that head for the middle; diverse: 12,000 random rows; small "
    "nets, 800 updates",
    baseline="the same without the penalty",
    metric="mean reward per step over the corners, narrow log",
    bar=at_least(0.0), seeds=3, minutes=2,
    note="On so small a problem penalty and none earn the same within the noise of three seeds.",
)  # fmt: skip
def fb_evidence(seed: int, zoo: Any) -> Result:
    """Also: the penalty on visits (MC-FB), and the diverse log."""
    narrow = point_log(Controller(wander=0.8, noise=0.2), 2_400, seed, ENV)
    diverse = point_log("random", 12_000, seed, ENV)
    plain = {name: _mean("none", log, seed) for name, log in
             (("narrow", narrow), ("diverse", diverse))}  # fmt: skip
    return Result(
        _mean("value", narrow, seed), plain["narrow"],
        {
            "reward of the penalty on visits": (_mean("measure", narrow, seed), plain["narrow"]),
            "reward, diverse log": (_mean("value", diverse, seed), plain["diverse"],
                                    at_least(-0.05)),
        },
    )  # fmt: skip
