"""Equilibria from a log: joint policies whose gap is small for all that the log allows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.equilibrium_gap import (
    CountedGame,
    Equilibrium,
    bounds,
    estimated_gap,
    radius,
)
from surpass.parts import part
from surpass.registry import system

__all__ = ["Agreement", "bcel", "bcel_pessimistic", "bcel_plug_in", "smallest_gap"]


class Agreement(NamedTuple):
    """The joint policy [S, J], its estimated gap, and the ends of its values [m]."""

    pi: Tensor
    gap: float
    low: Tensor
    high: Tensor


def _joint(logits: list[Tensor], kind: Equilibrium) -> Tensor:
    """[R, S, J]: one table of joint actions, or the product of the players' (Nash)."""
    if kind != "nash":
        return logits[0].softmax(-1)
    joint = logits[0].softmax(-1)
    for more in logits[1:]:
        joint = (joint[..., None] * more.softmax(-1)[..., None, :]).flatten(-2)
    return joint


@part
def smallest_gap(
    seen: CountedGame, /, kind: Equilibrium = "nash", c: float = 0.1, delta: float = 0.05,
    look: str = "both", starts: int = 6, steps: int = 300, lr: float = 0.1, seed: int = 0,
) -> Agreement:  # fmt: skip
    """argmin over softmax tables of what `look` says, by Adam from several starts, the even policy
    first: "both" ends of the intervals (the gap they allow), the "model" alone, or the lower end
    of the values alone ("low")."""
    if look not in ("both", "model", "low"):
        raise InputError(f"look at both, model or low, not at {look!r}")
    g = torch.Generator().manual_seed(seed)
    S, beta = seen.P.shape[0], radius(seen, c, delta)
    widths = seen.sizes if kind == "nash" else (seen.P.shape[1],)
    logits = [torch.randn(starts, S, k, generator=g, dtype=torch.float64) for k in widths]
    for x in logits:
        x[0] = 0.0
        x.requires_grad_()
    optimizer = torch.optim.Adam(logits, lr)

    def cost(pi: Tensor) -> Tensor:
        if look == "low":
            return -bounds(seen, pi, beta).low.sum(-1)
        return estimated_gap(seen, pi, 0.0 if look == "model" else beta, kind)

    best, kept = torch.full((starts,), torch.inf, dtype=torch.float64), torch.zeros(())
    for step in range(steps + 1):
        pi = _joint(logits, kind)
        now = cost(pi)
        better = now.detach() < best
        best = torch.where(better, now.detach(), best)
        kept = pi.detach() if step == 0 else torch.where(better[:, None, None], pi.detach(), kept)
        optimizer.zero_grad()
        now.sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = lr * (1 - step / (steps + 1))
    pi = kept[best.argmin()]
    ends = bounds(seen, pi, beta)
    return Agreement(pi, float(estimated_gap(seen, pi, beta, kind)), ends.low, ends.high)


@system("bcel")
def bcel(
    kind: Equilibrium = "nash", c: float = 0.1, delta: float = 0.05, starts: int = 6,
    steps: int = 300, lr: float = 0.1, seed: int = 0,
) -> Planner:  # fmt: skip
    """The joint policy of the smallest estimated gap: the best that a deviation may be worth, less
    the least that the policy may be. `solve` takes a `CountedGame`, rewards in [0, 1].

    Args:
        kind: nash, correlated or coarse. c: of the version space's radius; in our trials intervals
            covered from 0.003 on, and larger ones cost much. 1 - delta is the confidence.
        starts, steps, lr: of the search, which may stop in a local minimum.

    Raises:
        InputError: when a player has more than 4,096 deterministic deviations.
    """
    return Planner(smallest_gap(kind, c, delta, "both", starts, steps, lr, seed))


@system("bcel:plug-in")
def bcel_plug_in(
    kind: Equilibrium = "nash", c: float = 0.1, starts: int = 6, steps: int = 300, lr: float = 0.1,
    seed: int = 0,
) -> Planner:  # fmt: skip
    """The equilibrium of the likeliest model, without doubt; the same search."""
    return Planner(smallest_gap(kind, c, 0.05, "model", starts, steps, lr, seed))


@system("bcel:pessimistic")
def bcel_pessimistic(
    kind: Equilibrium = "nash", c: float = 0.1, starts: int = 6, steps: int = 300, lr: float = 0.1,
    seed: int = 0,
) -> Planner:  # fmt: skip
    """The largest sum of lower ends: safe for all together, but no equilibrium; the same search."""
    return Planner(smallest_gap(kind, c, 0.05, "low", starts, steps, lr, seed))
