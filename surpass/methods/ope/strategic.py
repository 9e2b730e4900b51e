"""Rules for people who answer them: causal strategic learning, and the rules it is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Planner
from surpass.objectives.strategic import (
    log_density,
    respond_smoothly,
    soft_labels,
    strategic_hinge,
    traced_back,
)
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.strategic import People

__all__ = ["Rule", "causal_rounds", "cserm", "plain_rule"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """Accept where w'x + b >= 0; `rounds` has the accuracy that each deployed rule had among the
    people of its round, in percent."""

    w: Float[Tensor, "d"]
    b: Tensor
    rounds: tuple[float, ...] = ()


def minimized(loss: Loss, w: Tensor, b: Tensor, steps: int, lr: float = 0.03) -> Rule:
    """Adam from (w, b), with a step size that falls to 0."""
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    solver = torch.optim.Adam([w, b], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, steps)
    with torch.enable_grad():
        for _ in range(steps):
            solver.zero_grad()
            loss(w, b).backward()
            solver.step()
            schedule.step()
    return Rule(w.detach(), b.detach())


def plain_rule(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n"], reach: float = 0.0, steps: int = 200
) -> Rule:
    """Empirical risk minimization: the hinge; with `reach` the strategic one, labels fixed."""
    return minimized(
        lambda w, b: strategic_hinge(y, x @ w + b, w, reach).mean() + 1e-3 * w.square().sum(),
        torch.zeros(x.shape[1], dtype=x.dtype) + 0.01, torch.zeros((), dtype=x.dtype), steps,
    )  # fmt: skip


def outcome_model(x: Tensor, y: Tensor, seed: int, steps: int = 250) -> Callable[[Tensor], Tensor]:
    """A small network's logit of y = 1."""
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], 32), nn.SiLU(), nn.Linear(32, 1)).double()
        solver = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.01)
        for _ in range(steps):
            out = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], (y + 1) / 2)
            solver.zero_grad()
            out.backward()
            solver.step()
    net.requires_grad_(False)
    return lambda at: net(at)[:, 0]


def spread_rules(
    x: Float[Tensor, "n d"], reach: float, rng: np.random.Generator, directions: int = 24
) -> list[tuple[Tensor, Tensor]]:
    """Rules in many directions, with boundaries between the people and `reach` beyond them: the
    loss has many minima, and these are where the descent may start."""
    d = x.shape[1]
    if d == 2:
        angle = 2 * np.pi * torch.arange(directions, dtype=x.dtype) / directions
        units = torch.stack((angle.cos(), angle.sin()), 1)
    else:
        units = torch.from_numpy(rng.normal(size=(directions, d)))
        units = units / units.norm(dim=1, keepdim=True)
    out = []
    for unit in units:
        along = x @ unit
        for place in torch.linspace(float(along.mean()), float(along.max()) + reach, 10).tolist():
            out += [(c * unit, x.new_tensor(-c * place)) for c in (1.0, 3.0)]
    return out


@part
def causal_rounds(
    people: People, /, rounds: int = 10, clean: int = 1000, new: int = 200, explore: float = 0.1,
    decay: float = 0.4, width: float = 0.3, steps: int = 200, seed: int = 0,
) -> Rule:  # fmt: skip
    """The rule that did best among the people who answered it.

    Each round: fit h to all outcomes so far; minimize the strategic hinge on clean rows with the
    label that h expects after the move, + explore decay^t times the log-density where people land,
    which sends them where nobody was; deploy; see the outcomes. Who stands on the boundary is
    traced back, since what is hidden went with where they were before.
    """
    rng, k = np.random.default_rng(seed), people.causal
    x, y = people.labeled(clean, rng)
    seen_x, seen_y = x, y
    best, found, told = -1.0, None, []
    start = plain_rule(x, y)
    tried = [(start.w, start.b), *spread_rules(x, people.reach, rng)]

    def surrogate(h: Any, t: int, data: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(w: Tensor, b: Tensor) -> Tensor:
            after, moved = respond_smoothly(x, w, b, people.reach)
            landed = torch.cat((after[:, :k], x[:, k:]), 1)
            label = soft_labels(y, moved, h(landed))
            out = strategic_hinge(label, x @ w + b, w, people.reach).mean()
            if explore:
                out = out + explore * decay**t * log_density(landed[:100], data, width).mean()
            return out + 1e-3 * w.square().sum()

        return loss

    for t in range(rounds):
        h = outcome_model(seen_x, seen_y, seed)
        some = seen_x[torch.from_numpy(rng.permutation(len(seen_x))[:300])]

        loss = surrogate(h, t, some)

        values = [float(loss(*start)) for start in tried]
        w, b = tried[int(np.argmin(values))]
        rule = minimized(loss, w, b, steps)
        after, outcome, moved = people.answered(rule.w, rule.b, new, rng)
        on_boundary = ((after @ rule.w + rule.b).abs() < 1e-9 * (1 + rule.w.norm()))[:, None]
        before = traced_back(after, rule.w, people.reach, lambda p: log_density(p, x, width))
        known = torch.where(on_boundary, torch.cat((after[:, :k], before[:, k:]), 1), after)
        seen_x, seen_y = torch.cat((seen_x, known)), torch.cat((seen_y, outcome))
        accepted = on_boundary[:, 0] | (after @ rule.w + rule.b >= 0)
        told.append(100 * float((accepted == (outcome > 0)).double().mean()))
        if told[-1] > best:
            best, found = told[-1], rule
    assert found is not None
    return Rule(found.w, found.b, tuple(told))


@system("cserm")
def cserm(
    rounds: int = 10, clean: int = 1000, new: int = 200, explore: float = 0.1, decay: float = 0.4,
    seed: int = 0,
) -> Planner:  # fmt: skip
    """Causal strategic risk minimization over rounds. `solve` takes `People` and gives a `Rule`.

    Args:
        rounds: deployments. clean: labeled people before the first. new: people of a round.
        explore, decay: weight of the log-density where people land, and its factor per round; 0
            deploys what looks best.
    """
    return Planner(causal_rounds(rounds, clean, new, explore, decay, seed=seed), episodes=rounds)
