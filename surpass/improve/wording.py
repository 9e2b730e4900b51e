"""Numbers and sentences as a reader sees them, the same in the page, the Markdown and the
console."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surpass.improve.improvement import Improvement
    from surpass.improve.results import CandidateResult

__all__ = [
    "NOTHING",
    "confidence",
    "count",
    "decimals",
    "gain_line",
    "given",
    "headline",
    "label",
    "moment",
    "number",
    "p_text",
    "percent",
    "plain_text",
    "relative",
    "rounded_rows",
]

NOTHING = "\u2013"


def _finite(*values: float | None) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def decimals(*values: float | None) -> int:
    """Decimals that show the spread of `values` with two digits (a single value with three)."""
    known = _finite(*values)
    if not known:
        return 3
    spread = (max(known) - min(known)) / 2
    if spread <= 0:
        largest = max(abs(v) for v in known)
        return 3 if largest == 0 else min(8, max(0, 2 - math.floor(math.log10(largest))))
    return min(8, max(0, 1 - math.floor(math.log10(spread))))


def number(value: float | None, places: int | None = None, *, sign: bool = False) -> str:
    """A number with `places` decimals; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    places = decimals(value) if places is None else places
    text = f"{value:{'+' if sign else ''},.{places}f}"
    return text.lstrip("+-") if not text.strip("+-0.,") else text


def count(value: float | None) -> str:
    """A count with thousands separators."""
    return NOTHING if value is None or not math.isfinite(value) else f"{round(value):,}"


def given(value: float) -> str:
    """A number that a person chose, as they would write it: 0.05, not 0.0500."""
    return f"{value:,.6g}"


def moment(iso: str) -> str:
    """`2026-05-12T08:30:00+00:00` as `2026-05-12 08:30 UTC`; other texts as they are."""
    try:
        return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return plain_text(iso)


def rounded_rows(value: float | None) -> str:
    """A number of rows nobody should read as exact: two digits, `1,200,000` as `1.2 million`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value <= 0:
        return "0"
    places = math.floor(math.log10(value)) - 1
    rounded = round(value / 10**places) * 10**places if places > 0 else round(value)
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if rounded >= size:
            return (
                f"{rounded / size:.2g} {word}"
                if rounded < 100 * size
                else f"{rounded / size:,.0f} {word}"
            )
    return f"{int(rounded):,}"


def percent(value: float | None, *, sign: bool = False) -> str:
    """A share as percent: two digits below ten (`5 %`, not `5.0 %`), whole numbers above."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value) * 100
    places = 0 if size >= 9.95 or size == 0 else 1 if size >= 0.1 else 2
    text = f"{100 * value:{'+' if sign else ''},.{places}f}"
    return f"{text.removesuffix('.0')}\u00a0%"


def p_text(value: float) -> str:
    """A p-value with two digits, and no more zeros than mean something."""
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def relative(gain: float | None, base: float) -> str | None:
    """The gain as a share of the reference's value, where that value is positive."""
    if gain is None or not math.isfinite(gain) or not math.isfinite(base) or base <= 0:
        return None
    return percent(gain / base, sign=True)


def confidence(level: float) -> str:
    """How the interval is meant: `90 % interval; each end holds with 95 %`."""
    return (
        f"{percent(1 - 2 * level)} interval: each end, taken alone, holds with {percent(1 - level)}"
    )


def plain_text(value: Any, longest: int = 60) -> str:
    """A name from the data on one line: no control or direction-changing characters, cut when
    long."""
    text = "".join(
        " " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") else c for c in str(value)
    )
    text = re.sub(" +", " ", text).strip()  # a no-break space stays one
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain_text(value, 24)


def settings(params: dict[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """`c=4, model=ridge`."""
    pairs = params.items() if isinstance(params, dict) else params
    return ", ".join(f"{plain_text(k, 24)}={_setting(v)}" for k, v in pairs if v is not None)


def label(candidate: CandidateResult) -> str:
    """A candidate by name and settings: `tilt (c=4)`; a key that brings its settings stays as it
    is."""
    inner = "" if "(" in candidate.key else settings(candidate.params)
    return plain_text(candidate.key) + (f" ({plain_text(inner)})" if inner else "")


def headline(result: Improvement) -> str:
    """The verdict as a person would say it, in one short sentence."""
    best = result.best
    if result.verdict == "PROMOTE":
        return "The new policy is better."
    if result.verdict == "REJECT":
        worse = best is not None and best.gain_high < 0
        return (
            "The candidate is worse than the reference."
            if worse
            else "The candidate does not beat the reference by enough."
        )
    if any(check.ran and not check.passed for check in result.checks):
        return "Not yet: something has to be settled first."
    return "Not yet: this log cannot tell."


def gain_line(result: Improvement) -> str:
    """The gain with its interval, in words; the empty string without a tested policy."""
    best = result.best
    if best is None:
        return ""
    places = decimals(best.gain_low, best.gain, best.gain_high)
    line = (
        f"Gain {number(best.gain, places, sign=True)} per {result.per}, from "
        f"{number(best.gain_low, places, sign=True)} to "
        f"{number(best.gain_high, places, sign=True)}"
    )
    share = relative(best.gain, result.reference.value)
    if share is not None:
        low = relative(best.gain_low, result.reference.value)
        line += f" ({share}" + (f", at least {low})" if best.gain_low > 0 and low else ")")
    return line
