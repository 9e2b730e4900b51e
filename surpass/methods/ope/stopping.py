"""When to stop optimizing a stand-in reward: before some reward near it falls."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from surpass.forms import Monitor, Reading
from surpass.parts import part
from surpass.registry import system

__all__ = ["goodhart_rl", "safe_direction", "toward_proxy"]

Kept = dict[str, Any]


@part(state=dict)
def safe_direction(state: Any, occupancy: Tensor, /, angle: float = 0.5) -> tuple[Reading, Any]:
    """Whether the last step of an optimization raised every reward within `angle` of the proxy:

        <d, u> > sin(angle),  d the step's direction, u the proxy's.

    The alarm means: stop before this step. State: `proxy`, its relevant part; `last`."""
    proxy, last, batch = state["proxy"], state.get("last"), state.get("batch", 0)
    kept = {**state, "last": occupancy, "batch": batch + 1}
    limit = math.sin(angle)
    if last is None:
        return Reading(1.0, limit, False), kept
    step = (occupancy - last).double()
    size = float(step.norm())
    if size < 1e-12:
        return Reading(1.0, limit, False, why="nothing moved"), kept
    cos = float((step * proxy).sum() / (size * proxy.norm()))
    alarm = cos <= limit
    why = (
        f"a reward {angle:g} rad from the proxy falls on this step; stop before it" if alarm else ""
    )
    return Reading(cos, limit, alarm, batch if alarm else None, why, {"step": size}), kept


@part
def toward_proxy(proxy: Tensor, /) -> Kept:
    """The proxy's direction."""
    return {"proxy": torch.as_tensor(proxy).double()}


@system("goodhart-rl")
def goodhart_rl(angle: float = 0.5) -> Monitor:
    """When to stop optimizing a stand-in reward: at the first step on which some reward within
    `angle` radians of it would fall. It buys safety, not the best mean.

    Each batch is a policy on the way: its occupancy (or discounted expected features); the anchor
    is the stand-in's relevant part (`surpass.objectives.occupancies.relevant`), or its weights on
    the features. `surpass.methods.ope.goodhart.cautious` trains for the worst such reward.
    """
    return Monitor(safe_direction(angle), toward_proxy())
