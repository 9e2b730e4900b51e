"""A monitor of errors and fairness that adapts: a mixture of linear experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.critics.fair_experts import FairExperts, Measure
from surpass.data.records import Decisions
from surpass.errors import InputError
from surpass.forms import Monitor, Reading
from surpass.parts import part
from surpass.registry import system

__all__ = ["experts", "fairness", "feamoe"]

Kept = dict[str, Any]


@part
def experts(
    rows: Decisions, /, measure: Measure = "parity", penalty: float = 2.0, growing: bool = True
) -> Kept:
    """A mixture with one expert, which has seen the anchor's rows once; columns are standardized as
    there."""
    x = rows.context.float()
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    model = FairExperts(x.shape[1], measure, penalty, most=8 if growing else 1)
    state = {"model": model, "mean": mean, "scale": scale, "batch": 0, "usual": None}
    x, y, z = _labeled(rows, state)
    for window in torch.arange(len(x)).split(500):
        model.watch(x[window], y[window], z[window])
        model.learn(x[window], y[window], z[window])
    state["usual"] = model.shapley(x)[-2000:]
    state["usual z"] = z[-2000:]
    return state


def _labeled(rows: Any, state: Kept) -> tuple[Tensor, Tensor, Tensor]:
    y, z = rows.reward.float(), rows.group
    if z is None or not bool(((z == 0) | (z == 1)).all()):
        raise InputError("a fairness monitor needs a group column of two values; name it by group=")
    if not bool(((y == 0) | (y == 1)).all()):
        raise InputError("a fairness monitor needs rewards (labels) of 0 and 1")
    return (rows.context.float() - state["mean"]) / state["scale"], y, z


@part(state=dict)
def fairness(state: Any, rows: Any, /) -> tuple[Reading, Any]:
    """How many standard errors the last three windows lie above the usual, in penalized loss, error
    or gap; on drift the mixture grows. `why` names the columns whose contribution to the gap
    between the groups moved
    most (Shapley values, in logits)."""
    model: FairExperts = state["model"]
    x, y, z = _labeled(rows, state)
    wrong, gap, score, drifted = model.watch(x, y, z)
    first = state["batch"] - max(model.age, 1) + 1
    if drifted:
        model.grow(x, y, z)
    model.learn(x, y, z)
    phi = model.shapley(x)
    moved = _apart(phi, z) - _apart(state["usual"], state["usual z"])
    order = moved.abs().argsort(descending=True)[:3].tolist()
    names = rows.about.names.get("context", ()) if hasattr(rows, "about") else ()
    told = [
        f"{names[j] if j < len(names) else f'column {j}'} {float(moved[j]):+.2f}" for j in order
    ]
    extras = {"error": wrong, "gap": gap, "experts": model.experts, "moved": moved}
    why = "the gap between the groups comes from " + ", ".join(told) if drifted else ""
    kept = {**state, "batch": state["batch"] + 1}
    if drifted:
        kept |= {"usual": phi, "usual z": z}
    return Reading(score, model.alarm, drifted, first if drifted else None, why, extras), kept


def _apart(phi: Tensor, z: Tensor) -> Tensor:
    """Mean attribution in group 1 less that in group 0, by column."""
    return phi[z == 1].mean(0) - phi[z == 0].mean(0)


@system("feamoe")
def feamoe(measure: Measure = "parity", penalty: float = 2.0, growing: bool = True) -> Monitor:
    """Whether errors or fairness drift, watched by a mixture of linear experts that adapts to it.

    Args:
        measure: of fairness: parity, odds or burden. penalty: of its square in the loss.
        growing: False: one expert that only goes on learning.
    """
    return Monitor(fairness(), experts(measure, penalty, growing))
