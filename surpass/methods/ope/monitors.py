"""Monitors: what they read of a batch, and when they raise an alarm.

`watch` is a part with state: from what it keeps and a batch to a `Reading` and what it keeps then.
`anchor` makes the first state from data that were in order. `surpass.monitor` runs them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.critics.fair_experts import FairExperts, Measure
from surpass.critics.text_anchor import Messages, Theme, fit_anchor
from surpass.data.records import Decisions
from surpass.errors import InputError
from surpass.evaluation.decisions import evaluate
from surpass.forms import Monitor, Reading
from surpass.objectives.change_points import alarm_thresholds, begun, largest_split
from surpass.parts import part
from surpass.registry import system

__all__ = [
    "drifting", "fairness", "feamoe", "gate", "goodhart_rl", "promotable", "safe_direction",
    "text_drift",
]  # fmt: skip

Kept = dict[str, Any]


# ------------------------------------------------------------------------------------------ drift


@part
def usual_messages(
    messages: Messages, /, dims: int = 128, epochs: int = 50, batch: int = 100
) -> Kept:
    """An autoencoder of the anchor's messages; those it did not train on, drawn in batches, are the
    start of the series."""
    anchor = fit_anchor(messages, dims=dims, epochs=epochs)
    rng = np.random.default_rng(0)
    size = min(batch, len(anchor.held_out))
    start = [float(rng.choice(anchor.held_out, size).mean()) for _ in range(20)]
    return {"anchor": anchor, "series": start, "first": 20, "odd": []}


@part(state=dict)
def drifting(
    state: Any, messages: Any, /, run_length: int = 500, remember: int = 40
) -> tuple[Reading, Any]:
    """The rank test for a drop of the mean similarity to the anchor, over the batches since the
    last
    alarm (after the anchor's own); `since` is the batch, counted from 0, at which it began.

    Args:
        run_length: batches between false alarms, on average. remember: batches whose outliers are
            kept for the explanation.
    """
    anchor, series, odd = state["anchor"], list(state["series"]), list(state["odd"])
    similar = anchor.similarity(messages)
    series.append(float(similar.mean()))
    at = np.flatnonzero(similar < anchor.odd)
    odd.append([messages[i] for i in at] if not isinstance(messages, Tensor) else messages[at])
    seen, first, start = len(odd) - 1, state["first"], state.get("start", 0)
    limits = alarm_thresholds(run_length)
    value = float(largest_split(np.array([series]))[0][0])
    limit = limits[min(len(series), len(limits)) - 1]
    alarm = value > limit
    since = max(begun(np.array(series)) - first, 0) + start if alarm else None
    share = len(at) / max(len(similar), 1)
    why, extras = "", {"similarity": series[-1], "outliers": share}
    if alarm and since is not None:
        themes = anchor.themes(_pooled(odd[since:]))
        extras["themes"] = themes
        why = _told(themes, share)
        series, start, first = series[-1:], seen, 0
    kept = {**state, "series": series, "odd": _shortened(odd, remember), "start": start,
            "first": first}  # fmt: skip
    return Reading(value, limit, alarm, since, why, extras), kept


def _shortened(odd: list[Any], remember: int) -> list[Any]:
    """Old outliers are dropped; their batches keep their place."""
    cut = len(odd) - remember
    return [o[:0] if i < cut else o for i, o in enumerate(odd)]


def _pooled(odd: list[Any]) -> Any:
    if odd and isinstance(odd[0], Tensor):
        return torch.cat(odd)
    return [message for batch in odd for message in batch]


def _told(themes: list[Theme], share: float) -> str:
    if not themes:
        return f"{share:.0%} of the batch are outliers; too few to say of what kind"
    parts = [f"{t.size} messages about {', '.join(t.words[:3])}" for t in themes[:4]]
    return "; ".join(parts)


@system("text-drift")
def text_drift(run_length: int = 500, dims: int = 128, epochs: int = 50) -> Monitor:
    """Whether batches of short texts (or of any vectors) still look like those of the anchor, with
    a
    controlled rate of false alarms, and what the odd ones are about.

    Args:
        run_length: batches between false alarms, on average. dims: of the text embedding.
        epochs: of the autoencoder, at most.
    """
    return Monitor(drifting(run_length), usual_messages(dims, epochs))


# --------------------------------------------------------------------------------------- fairness


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


# --------------------------------------------------------------------------------------- goodhart


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
    is
    the stand-in's relevant part (`surpass.objectives.occupancies.relevant`), or its weights on the
    features. `surpass.methods.ope.goodhart.cautious` trains for the worst such reward.
    """
    return Monitor(safe_direction(angle), toward_proxy())


# ------------------------------------------------------------------------------------------- gate


@part(state=dict)
def promotable(
    state: Any, rows: Any, /, margin: float = 0.0, level: float = 0.05, estimator: str = "snips"
) -> tuple[Reading, Any]:
    """Whether the candidate is good enough on this window: the lower end of its gain over the
    policy
    that logged it, paired row by row, above -margin. The alarm means: do not promote."""
    found = evaluate(state["policy"], rows, estimators=(estimator,), level=level)[estimator]
    alarm = not found.gain_low > -margin
    batch = state.get("batch", 0)
    told = f"gain {found.gain:+.4g} [{found.gain_low:+.4g}, {found.gain_high:+.4g}]"
    why = f"{told}; not proven above {-margin:g}" if alarm else told
    extras = {"gain": found.gain, "low": found.gain_low, "high": found.gain_high, "ess": found.ess}
    reading = Reading(found.gain_low, -margin, alarm, batch if alarm else None, why, extras)
    return reading, {**state, "batch": batch + 1}


@part
def candidate(policy: object, /) -> Kept:
    """The policy that asks to be promoted."""
    return {"policy": policy}


def gate(margin: float = 0.0, level: float = 0.05, estimator: str = "snips") -> Monitor:
    """The gate of online learning: may the candidate replace the policy that is logging?

    Args:
        margin: how much worse it may be, in units of the reward. level: what the interval of the
            gain leaves out, both sides together. estimator: snips, dr, or another key.
    """
    return Monitor(promotable(margin, level, estimator), candidate())
