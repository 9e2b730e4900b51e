"""Group-relative REINFORCE on any data: masks, importance ratios, regularizers and sample weights,
one at a time. The derivation never asks where answers came from; what the members add is how far
stale answers may pull."""

from __future__ import annotations

from typing import Any

from surpass.errors import InputError, nearest
from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_centered, ones
from surpass.objectives.groups import centered_over, no_more_failures, weighted_up
from surpass.objectives.masks import ring, squared_ratio, two_side
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import unclipped
from surpass.objectives.unified import anchored, current, unified, unmasked
from surpass.parts import Number
from surpass.registry import system

__all__ = ["asymre", "opmd", "rec", "red_drop", "red_weight"]

MASKS: dict[str, Any] = {
    "none": unmasked,
    "one-side": unclipped,
    "two-side": two_side,
    "ring": ring,
}


def _form(
    advantage: Any, trust: Any, group: int, lr: Number, batch: int, horizon: int,
    minibatches: int, select: Any = None,
) -> PolicyGradient:  # fmt: skip
    return PolicyGradient(
        advantage, trust, reduce=sum_over(float(horizon)), select=select,
        source=rollouts(batch, horizon, group), minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("rec")
def rec(
    mask: str = "one-side", importance: bool = False, low: float = 0.2, high: float = 0.2,
    group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256, minibatches: int = 20,
) -> PolicyGradient:  # fmt: skip
    """-A x mask x (r, or log pi without `importance`), A = R - mean R of the group; masks "none",
    "one-side", "two-side" or "ring". The wide range is low=0.6, high=2.0."""
    if mask not in MASKS:
        raise InputError(f"mask={mask!r}{nearest(mask, list(MASKS))}: {', '.join(MASKS)}")
    held = MASKS[mask]() if mask == "none" else MASKS[mask](low, high)
    trust = unified(held, anchored() if importance else current())
    return _form(group_centered(), trust, group, lr, batch, horizon, minibatches)


@system("rec:opmd")
def opmd(
    beta: float = 0.1, group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256,
    minibatches: int = 20,
) -> PolicyGradient:  # fmt: skip
    """REINFORCE plus beta (sum of log-ratios)^2 / 2 of each answer."""
    trust = unified(denominator=current()) + beta * squared_ratio()
    return _form(group_centered(), trust, group, lr, batch, horizon, minibatches)


@system("rec:asymre")
def asymre(
    beta: float = 0.1, group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256,
    minibatches: int = 20,
) -> PolicyGradient:  # fmt: skip
    """REINFORCE whose baseline is lowered by beta: also imitation, beta KL(pi_old || pi)."""
    trust = unified(denominator=current())
    return _form(group_centered() + beta * ones(), trust, group, lr, batch, horizon, minibatches)


@system("rec:red-drop")
def red_drop(
    group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256, minibatches: int = 20,
    importance: bool = True,
) -> PolicyGradient:  # fmt: skip
    """REINFORCE on a part of each group with at most as many failures as successes; the mean is
    that of the part."""
    trust = unified(denominator=anchored() if importance else current())
    return _form(centered_over(no_more_failures()), trust, group, lr, batch, horizon, minibatches,
                 no_more_failures())  # fmt: skip


@system("rec:red-weight")
def red_weight(
    temperature: float = 1.0, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, minibatches: int = 20,
) -> PolicyGradient:  # fmt: skip
    """REINFORCE with answers weighted by exp(A / temperature)."""
    trust = unified(denominator=current())
    return _form(weighted_up(group_centered(), temperature), trust, group, lr, batch, horizon,
                 minibatches)  # fmt: skip
