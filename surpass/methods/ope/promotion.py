"""The gate of online learning: may the candidate replace the policy that is logging?"""

from __future__ import annotations

from typing import Any

from surpass.evaluation.decisions import evaluate
from surpass.forms import Monitor, Reading
from surpass.parts import part

__all__ = ["candidate", "gate", "promotable"]

Kept = dict[str, Any]


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
