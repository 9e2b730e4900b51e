"""A monitor of texts: when they stopped looking like the anchor, and what the odd ones are about.

`watch` is a part with state: from what it keeps and a batch to a `Reading` and what it keeps then.
`anchor` makes the first state from data that were in order. `surpass.monitor` runs them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.critics.text_anchor import Messages, Theme, fit_anchor
from surpass.forms import Monitor, Reading
from surpass.objectives.change_points import alarm_thresholds, begun, largest_split
from surpass.parts import part
from surpass.registry import system

__all__ = ["drifting", "text_drift", "usual_messages"]

Kept = dict[str, Any]


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
