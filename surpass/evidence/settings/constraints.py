"""Evidence of hard constraints from a log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.forms import adam, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.methods.settings.constraints import fisor
from surpass.objectives.value import clone
from surpass.objectives.weights import exponential, over_value
from surpass.parts import set_at, stop
from surpass.policies.acting import InEnvironment, mean
from surpass.policies.gaussian import gaussian
from surpass.tasks.point import PointMass
from surpass.training.run import train as fit

HAZARD = (0.5, 0.0, 0.25)
ENV = PointMass(start=(0.8, -0.2, 1.0, 0.2), horizon=60)


def inside(obs: Tensor) -> Tensor:
    """1 in the disc."""
    x, y, radius = HAZARD
    return (torch.hypot(obs[:, 0] - x, obs[:, 1] - y) < radius).float()


def _behavior(obs: Tensor, side: Tensor, careful: Tensor, g: torch.Generator) -> Tensor:
    """To the goal: straight, or around the disc on one side; noisy."""
    x, y, radius = HAZARD
    way = torch.stack([torch.full_like(side, x), y + side * (radius + 0.2)], -1)
    before = (careful > 0) & (obs[:, 0] > x - 0.05)
    aim = torch.where(before[:, None], way, torch.zeros_like(way))
    action = (-(2.0 * (obs[:, :2] - aim) + 1.5 * obs[:, 2:])).clamp(-1.0, 1.0)
    return (action + 0.3 * torch.randn(action.shape, generator=g)).clamp(-1.0, 1.0)


def make_log(episodes: int, seed: int) -> Transitions:
    """Half of the episodes go around the disc, half straight through it."""
    g = torch.Generator().manual_seed(seed)
    state, obs = ENV.reset(episodes, g)
    side = 2.0 * torch.randint(2, (episodes,), generator=g) - 1.0
    careful = (torch.rand(episodes, generator=g) < 0.5).float()
    columns: dict[str, list[Tensor]] = {}
    for _ in range(ENV.horizon):
        action = _behavior(obs, side, careful, g)
        after = ENV.step(state, action)
        row = {"obs": obs, "action": action, "reward": after.reward, "next_obs": after.obs,
               "terminated": after.terminated, "truncated": after.truncated,
               "cost": inside(after.obs)}  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        state, obs = after.state, after.obs
    flat = {k: torch.stack(v, 1).flatten(0, 1) for k, v in columns.items()}
    rows = episodes * ENV.horizon
    episode = torch.arange(episodes).repeat_interleave(ENV.horizon)
    return Transitions(
        **flat,
        episode=episode,
        batch_size=[rows],  # type: ignore[call-arg]
    ).described(About(name="point with a disc", spaces={"action_low": -1.0, "action_high": 1.0}))


def played(policy: Any, episodes: int = 100) -> tuple[float, float]:
    """Share of episodes that ever enter the disc, and mean return."""
    state, obs = ENV.reset(episodes, torch.Generator().manual_seed(10_000))
    total, hit = torch.zeros(episodes), torch.zeros(episodes)
    for _ in range(ENV.horizon):
        after = ENV.step(state, policy.act(obs).action)
        total, hit = total + after.reward, torch.maximum(hit, inside(after.obs))
        state, obs = after.state, after.obs
    return float(hit.mean()), float(total.mean())


@evidence(
    "fisor",
    claim="hardly any episode violates the constraint, where implicit Q-learning on the same log "
    "goes straight through, and a penalty on the reward trades one for the other",
    setting="POINT with a forbidden disc between start and goal; 200 noisy episodes, half of them "
    "through it; 2,000 updates of small nets",
    baseline="implicit Q-learning with a Gaussian, its reward less the cost times the best of 1 "
    "and 5 by violations",
    metric="share of episodes without violation",
    bar=at_least(0.0), seeds=3, minutes=2,
)  # fmt: skip
def fisor_evidence(seed: int, zoo: Any) -> Result:
    """Also: the share of violations, against IQL without safety, and the return beside it."""
    log = make_log(200, seed)
    lr, hidden = 1e-3, (48, 48)
    form = fisor(tau=0.9, n=16, lr=lr, polyak=0.02, smooth=0.01, width=48, hidden=hidden)
    form = set_at(set_at(form, "nets.pi.blocks", 2), "nets.pi.expansion", 2)
    weight = exponential(over_value("q_target"), 3.0, 100.0)
    plain = train("gauss", stop(weight) * clone("gauss"), adam(lr))
    form = replace(
        form, nets={**form.nets, "gauss": gaussian(hidden)}, update=(*form.update, plain)
    )
    trained = fit(form, log, steps=2_000, seed=seed, compile=False)
    ours = played(trained.policy)
    free = played(InEnvironment(mean("gauss")(trained.nets, {}), trained.spaces))
    soft = [_penalized(log, factor, seed, lr, hidden) for factor in (1.0, 5.0)]
    best = min(soft)
    return Result(
        1 - ours[0], 1 - best[0],
        {
            "share of episodes with a violation": (ours[0], free[0], at_most(0.1, alone=True)),
            "violations of implicit Q-learning": (free[0], ours[0], at_least(0.15, alone=True)),
            "return beside implicit Q-learning": (ours[1], free[1]),
            "return beside the penalized reward": (ours[1], best[1]),
        },
    )  # fmt: skip


def _penalized(
    log: Transitions, factor: float, seed: int, lr: float, hidden: tuple[int, ...]
) -> tuple[float, float]:
    """Implicit Q-learning on the reward less `factor` times the cost."""
    assert log.cost is not None
    other = log.clone()
    other.reward = log.reward - factor * log.cost
    form = fisor(lr=lr, hidden=hidden)
    weight = exponential(over_value("q_target"), 3.0, 100.0)
    form = replace(
        form,
        nets={**implicit_nets(hidden, 0.02), "pi": gaussian(hidden)},
        update=(*implicit_steps(0.9, 0.99, lr), train("pi", stop(weight) * clone(), adam(lr))),
        act=mean(),
    )
    trained = fit(form, other, steps=2_000, seed=seed, compile=False)
    return played(trained.policy)
