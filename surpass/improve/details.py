"""The end of the report, folded: how the verdict was made, and every number behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from surpass.improve.report import Block, Section
from surpass.improve.results import Check
from surpass.improve.wording import (
    NOTHING,
    count,
    decimals,
    given,
    label,
    moment,
    number,
    p_text,
    percent,
    plain_text,
)

if TYPE_CHECKING:
    from surpass.improve.improvement import Improvement

__all__ = ["details"]


def details(result: Improvement) -> list[Section | None]:
    """The folded sections at the end; None where there is nothing to say."""
    return [
        _folded("method", "How the verdict was made", [Block("list", _method(result))]),
        _folded("candidates", f"All candidates ({len(result.candidates)})", _candidates(result)),
        _folded("portfolio", "Had several been tested", _portfolio(result)),
        _folded("checks", "All checks, with their numbers", _checks(result.checks)),
        _folded("log", "The log", _log(result)),
        _folded("run", "This run", _run(result)),
    ]


def _folded(key: str, title: str, blocks: list[Block]) -> Section | None:
    return Section(key, title, tuple(blocks), folded=True) if blocks else None


_ORIGIN = {
    "learned": (
        "Candidates are learned in stages on growing parts of the log; each stage is scored on "
        "rows that come after, so no row judges a policy that has seen it.",
        "Within the learning rows, cross-validation picks the one candidate whose gain looks "
        "most provable. Only that one is tested.",
    ),
    "given": (
        "The candidates were given, so all rows can judge them; the reward model that calms the "
        "noise is fitted on other rows than those it is used on.",
        "With several candidates, Holm's procedure shares the level among them, unless their order "
        "was fixed beforehand: then each is tested in turn until one fails.",
    ),
    "journal": (
        "At each look a policy is nominated from all earlier rows and frozen, with its hash, in "
        "the journal; only rows that arrive later are scored with it.",
        "The evidence of all looks is multiplied up, so that any number of looks together keeps "
        "the level.",
    ),
}


def _method(result: Improvement) -> list[str]:
    level = percent(result.level)
    how = result.method or (
        *_ORIGIN[result.design],
        "Each row is scored with a doubly robust paired score: what the candidate would have "
        "earned there minus what the reference earned, with a reward model to calm the noise.",
        "The guarded test adds one imaginary row with the worst score that the reward's range "
        "allows. That keeps it honest when something rare and bad has not been seen yet.",
    )
    return [
        *how,
        f"PROMOTE when the chance of such evidence without a gain above the margin "
        f"({given(result.margin)}) is at most {level}, and no check failed; REJECT when the "
        f"opposite is proven at {level}; HOLD otherwise.",
    ]


def _candidates(result: Improvement) -> list[Block]:
    if not result.candidates:
        return []
    lead = result.best or result.candidates[0]
    places = decimals(lead.gain_low, lead.gain, lead.gain_high)
    head = ["Candidate", "Gain", "From", "To", "Value", "Eff. rows", "Unsupported", "p"]
    if any(c.truth is not None for c in result.candidates):
        head.append("True gain")
    rows = []
    for c in sorted(result.candidates, key=lambda c: (not c.tested, -c.gain)):
        row = [
            label(c) + (" (tested)" if c.tested else ""),
            *(number(g, places, sign=True) for g in (c.gain, c.gain_low, c.gain_high)),
            number(c.value, places), count(c.ess), percent(1 - c.support),
            p_text(c.p_value) if c.p_value is not None else NOTHING,
        ]  # fmt: skip
        if len(head) == 9:
            row.append(number(c.truth, places, sign=True))
        rows.append(row)
    return [Block("table", {"title": "", "head": head, "rows": rows})]


def _portfolio(result: Improvement) -> list[Block]:
    """Top-k portfolios: what choosing the first k would have led to."""
    table = result.diagnosis.get("portfolio") or {}
    if not table.get("rows"):
        return []
    rows = table["rows"]
    places = decimals(*(r[n] for r in rows for n in ("best", "mean", "worst")))
    head = ["Chosen by", "k", "Best gain", "Mean", "Worst", "SharpeRatio@k", "Rank correlation"]
    body = [
        [
            r["estimator"] if r["k"] == 1 else "", str(r["k"]),
            *(number(r[n], places, sign=True) for n in ("best", "mean", "worst")),
            _figure_of(r["sharpe"]),
            _figure_of(table["ranks"][r["estimator"]]["rank"]) if r["k"] == 1 else "",
        ]
        for r in rows
    ]  # fmt: skip
    lead = (
        f"Of {table['candidates']} candidates, the first k are judged by {table['judge']}. "
        "SharpeRatio@k is the best one's gain over how far they are apart: high where a test of "
        "these k risks little for what it finds. No entry takes part in the verdict."
    )
    return [Block("text", lead), Block("table", {"title": "", "head": head, "rows": body})]


def _checks(checks: Sequence[Check]) -> list[Block]:
    rows = [
        [
            c.name, "not run" if not c.ran else "passed" if c.passed else "failed",
            _figure_of(c.statistic), _figure_of(c.threshold),
        ]
        for c in checks
    ]  # fmt: skip
    head = ["Check", "Result", "Found", "Held against"]
    return [Block("table", {"title": "", "head": head, "rows": rows})] if rows else []


def _figure_of(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4g}"


def _log(result: Improvement) -> list[Block]:
    diagnosis, blocks = result.diagnosis, []
    facts: list[list[str]] = [["Rows", count(result.rows)]]
    if diagnosis.get("units") is not None:
        unit = plain_text(diagnosis.get("unit", "row"))
        facts.append(["Independent units", f"{count(diagnosis['units'])} ({unit})"])
    facts.append(["Reference", plain_text(result.reference_name, 200)])
    for name, value in (diagnosis.get("columns") or {}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        facts.append([f"Column: {plain_text(name)}", plain_text(shown, 400)])
    facts += _reward_facts(diagnosis.get("reward") or {})
    repeated = diagnosis.get("duplicates") or {}
    if repeated.get("pairs"):
        text = (
            f"{count(repeated['pairs'])} pairs, {percent(repeated.get('repeated'))} with one action"
        )
        facts.append(["Rows with one context", text])
    quantiles = (diagnosis.get("overlap") or {}).get("quantiles") or {}
    if quantiles:
        text = ", ".join(f"{plain_text(q)}: {number(w, 2)}" for q, w in quantiles.items())
        facts.append(["Quantiles of the weights", text])
    blocks.append(Block("table", {"title": "", "head": [], "rows": facts}))
    actions = list(diagnosis.get("actions") or ())
    if actions:
        places = decimals(*(a.get("reward") for a in actions))
        rows = [
            [
                a["action"],
                count(a.get("count")),
                percent(a.get("share")),
                number(a.get("reward"), places),
            ]
            for a in actions[:200]
        ]
        head = ["Action", "Rows", "Share", "Mean reward"]
        title = "Actions, as logged"
        if len(actions) > 200:
            title += f" (the first 200 of {len(actions)})"
        blocks.append(Block("table", {"title": title, "head": head, "rows": rows}))
    return blocks


def _reward_facts(reward: Mapping[str, Any]) -> list[list[str]]:
    facts = []
    if reward.get("mean") is not None:
        low, high = reward.get("low"), reward.get("high")
        text = number(reward["mean"])
        if low is not None and high is not None:
            text += f", between {low:.6g} and {high:.6g}"
        facts.append(["Mean reward", text])
    if reward.get("range"):
        low, high = reward["range"]
        source = plain_text(reward.get("range_source", ""), 80)
        facts.append(
            ["Range of the reward", f"{low:.6g} to {high:.6g}" + (f" ({source})" if source else "")]
        )
    return facts


def _run(result: Improvement) -> list[Block]:
    rows = [
        ["Level", percent(result.level)], ["Margin", given(result.margin)],
        ["Seed", str(result.seed)], ["Made", moment(result.created)],
    ]  # fmt: skip
    rows += [[f"Version: {plain_text(k)}", plain_text(v)] for k, v in result.versions.items()]
    rows += [[f"Seconds: {plain_text(k)}", number(v, 1)] for k, v in result.seconds.items()]
    return [Block("table", {"title": "", "head": [], "rows": rows})]
