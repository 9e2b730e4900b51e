"""What `surpass.improve` returns: the verdict, with everything that a reader needs to believe or
to doubt it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["CandidateResult", "Check", "Estimate", "Figure", "Settlement", "Verdict"]

Verdict = Literal["PROMOTE", "HOLD", "REJECT"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: `value` lies in [`low`, `high`] as the report says (which level,
    which sides)."""

    value: float
    low: float
    high: float
    name: str = ""
    biased: bool = False
    note: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at before the verdict.

    Attributes:
        name: as a person would say it, such as "logged propensities".
        passed: False turns PROMOTE into HOLD.
        statistic, threshold: the number found, and the one it was held against.
        reason: one sentence: what was found, and, where it failed, what to do.
        ran: False where the log has not what the check needs (then `passed` is True and `reason`
            says why).
        details: numbers and short tables for the pictures.
    """

    name: str
    passed: bool
    statistic: float | None
    threshold: float | None
    reason: str
    ran: bool = True
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CandidateResult:
    """One policy that was weighed against the reference.

    `value` is its estimated mean reward, `gain` its paired difference to the reference; `gain_low`
    and `gain_high`
    are one-sided bounds at the verdict's level each. `tested` is True for the policy the verdict
    is about; the others
    are for information. `agreement` holds the other estimators' gains. `truth` is the true gain
    where it is known.
    """

    key: str
    params: dict[str, Any]
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    ess: float
    support: float
    p_value: float | None = None
    tested: bool = False
    agreement: tuple[Estimate, ...] = ()
    truth: float | None = None


@dataclass(frozen=True)
class Settlement:
    """What would settle a HOLD: rows of the same kind, or rows logged with more exploration.

    `rows`, `rows_low`, `rows_high`: total rows of the same kind of log for 80 % power ("about").
    `exploration`: one entry per share eps: {"share": eps, "rows": n, "cost": expected reward given
        up per row}.
    `actions`: the actions that the best exploration would show more often: {"action", "now",
        "best"}.
    """

    rows: float | None
    rows_low: float | None
    rows_high: float | None
    sentence: str
    exploration: tuple[dict[str, float], ...] = ()
    actions: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Figure:
    """The numbers behind one picture of the report: `kind` says how to draw `data`."""

    kind: str
    title: str
    data: dict[str, Any]
    caption: str = ""


def plain(value: Any) -> Any:
    """The same value in types that JSON knows (NaN and infinities become None)."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return value
