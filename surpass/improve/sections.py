"""What the report on a decision log says, top-down: the verdict, why to believe it, what could be
wrong, what would settle it, how to use the policy, details."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from surpass.improve.details import details
from surpass.improve.pictures import interval_bar
from surpass.improve.report import Block, Headline, Number, Page, Section
from surpass.improve.results import CandidateResult, Estimate, Figure
from surpass.improve.wording import (
    confidence,
    count,
    decimals,
    given,
    headline,
    label,
    moment,
    number,
    p_text,
    percent,
    plain_text,
    relative,
    rounded_rows,
)

if TYPE_CHECKING:
    from surpass.improve.improvement import Improvement

__all__ = ["page"]

_SHOWN_CANDIDATES = 10
_SHOWN_ACTIONS = 12


def page(
    result: Improvement, *, policy: str | None = None, card: Mapping[str, Any] | None = None
) -> Page:
    """The report on `result`; sections without content are left out.

    Args:
        policy: the folder that holds the policy, as the reader would write it.
        card: the content of its policy.json.
    """
    sections = (
        _believe(result),
        _samples(result),
        _wrong(result),
        _settle(result),
        _use(result, policy, card or {}),
        *details(result),
    )
    log = plain_text(result.log, 80)
    return Page(
        title=f"{result.verdict}: {log}",
        subtitle=log,
        headline=_headline(result),
        sections=tuple(section for section in sections if section is not None),
        footer=f"Made by surpass {result.versions.get('surpass', '')} on {moment(result.created)}, "
        f"seed {result.seed}.",
    )


# ------------------------------------------------------------------------------ verdict block


def _headline(result: Improvement) -> Headline:
    best = result.best
    tiles = [
        Number(
            f"{'steps' if result.per == 'episode' else 'rows'} in the log",
            count(result.rows),
            result.rows,
        )
    ]
    scored = result.diagnosis.get("scored")
    if scored is not None:
        tiles.append(Number(f"{_unit(result)} that judged the policy", count(scored), scored))
    if best is None:
        tiles.append(_value_tile(f"{_earned(result)}, reference", result.reference))
        return Headline(result.verdict, headline(result), result.reason, tiles=tuple(tiles))
    finest = min(decimals(e.low, e.value, e.high) for e in (result.reference, best))
    tiles.append(_value_tile(f"{_earned(result)}, reference", result.reference, finest))
    tiles.append(_value_tile(f"{_earned(result)}, candidate", best, finest))
    places = decimals(best.gain_low, best.gain, best.gain_high)
    share = relative(best.gain, result.reference.value)
    return Headline(
        verdict=result.verdict,
        sentence=headline(result),
        reason=result.reason,
        gain=Number(f"gain per {result.per}", number(best.gain, places, sign=True), best.gain),
        share=Number("of the reference's value", share, best.gain / result.reference.value)
        if share is not None
        else None,
        interval=(
            Number("from", number(best.gain_low, places, sign=True), best.gain_low),
            Number("to", number(best.gain_high, places, sign=True), best.gain_high),
        ),
        meaning=_meaning(result, best),
        confidence=f"{confidence(result.level)}.",
        picture=interval_bar(
            value=best.gain, low=best.gain_low, high=best.gain_high, margin=result.margin,
            truth=best.truth, places=places,
        ),
        tiles=tuple(tiles),
    )  # fmt: skip


def _unit(result: Improvement) -> str:
    return {"episode": "episodes", "answer": "prompts"}.get(result.per, "rows")


def _earned(result: Improvement) -> str:
    return "return per episode" if result.per == "episode" else f"reward per {result.per}"


def _value_tile(
    name: str, estimate: Estimate | CandidateResult, places: int | None = None
) -> Number:
    if places is None:
        places = decimals(estimate.low, estimate.value, estimate.high)
    low, high = number(estimate.low, places), number(estimate.high, places)
    note = f"{low} to {high}" if math.isfinite(estimate.low + estimate.high) else ""
    return Number(name, number(estimate.value, places), estimate.value, note)


def _meaning(result: Improvement, best: CandidateResult) -> str:
    """The gain in things one can count, where the reward is 0 or 1; and the truth, where known."""
    sentences = []
    if _binary(result) and result.verdict == "PROMOTE":
        per = 1000 if abs(best.gain_low) * 1000 >= 1 else 100_000
        sentences.append(
            f"In {per:,} {result.per}s that is about {count(best.gain * per)} more rewards, and at "
            f"least {count(math.floor(best.gain_low * per))}."
        )
    if best.truth is not None and math.isfinite(best.truth):
        places = decimals(best.gain_low, best.gain, best.gain_high)
        inside = best.gain_low <= best.truth <= best.gain_high
        sentences.append(
            f"Here the truth is known: the gain is {number(best.truth, places, sign=True)}, "
            f"{'inside' if inside else 'outside'} the interval (◆)."
        )
    return " ".join(sentences)


def _binary(result: Improvement) -> bool:
    values = result.diagnosis.get("reward", {}).get("values") or ()
    return sorted(float(v) for v in values) == [0.0, 1.0]


# -------------------------------------------------------------------------- why to believe it


def _believe(result: Improvement) -> Section | None:
    title = "What the log says so far" if result.verdict == "HOLD" else "Why to believe it"
    blocks: list[Block] = []
    if result.candidates:
        blocks.append(Block("picture", _forest(result)))
    agreement = _agreement(result)
    if agreement is not None:
        blocks.append(Block("picture", agreement))
    chosen = result.diagnosis.get("estimators")
    if chosen:
        blocks.append(Block("list", list(chosen)))
    passed = [c for c in result.checks if c.ran and c.passed]
    if passed:
        blocks.append(Block("checks", passed))
    blocks += [Block("picture", figure) for figure in result.figures]
    return Section("believe", title, tuple(blocks), lead=_protocol(result)) if blocks else None


def _protocol(result: Improvement) -> str:
    if result.best is None:
        return ""
    scored = result.diagnosis.get("scored")
    rows = f"{count(scored)} {_unit(result)}" if scored is not None else _unit(result)
    if result.per == "episode":
        return (
            f"Policies were learned on some episodes, one was chosen on others, and {rows} (or "
            "play in the environment) judged it. Over repeated logs, such a test promotes a policy "
            f"that is no better at most {percent(result.level)} of the time."
        )
    if result.per == "answer":
        return (
            f"Models were trained on some prompts, one was chosen on others, and {rows} that none "
            "of them had seen judged it. Over repeated data, such a test promotes a model that is "
            f"no better at most {percent(result.level)} of the time."
        )
    opening = {
        "learned": "One policy was chosen on the rows it learned from, then tested once, on "
        f"{rows} it had never seen.",
        "given": f"The policies were fixed before this log was looked at, and scored on {rows}; "
        "where there are several, the test pays for each of them.",
        "journal": f"Each look froze a policy, and only rows that came later judged it: {rows} so "
        "far. Looking often is paid for.",
    }[result.design]
    return (
        f"{opening} Over repeated logs, such a test promotes a policy that is no better at most "
        f"{percent(result.level)} of the time."
    )


def _forest(result: Improvement) -> Figure:
    tested = [c for c in result.candidates if c.tested]
    others = sorted(
        (c for c in result.candidates if not c.tested), key=lambda c: c.gain, reverse=True
    )
    shown = [*tested, *others[: max(0, _SHOWN_CANDIDATES - len(tested))]]
    rows = [
        {
            "label": label(c),
            "note": "tested" if c.tested else "",
            "value": c.gain, "low": c.gain_low, "high": c.gain_high, "truth": c.truth,
            "mark": "tested" if c.tested else "muted",
        }
        for c in shown
    ]  # fmt: skip
    hidden = len(result.candidates) - len(shown)
    parts = [
        "Estimated gain over the reference (solid line at zero), with its interval. The filled "
        "dot is the policy that was tested; the open ones are for information and could not be "
        "promoted."
    ]
    if result.margin:
        parts.append(f"The dashed line is the asked margin, {given(result.margin)}.")
    if any(c.truth is not None for c in shown):
        parts.append("◆ is the true gain, known for this log.")
    if hidden > 0:
        parts.append(f"{hidden} more are listed under Details.")
    data = {"rows": rows, "zero": 0.0, "margin": result.margin}
    return Figure("forest", "Gain of each candidate", data, " ".join(parts))


def _agreement(result: Improvement) -> Figure | None:
    best = result.best
    if best is None or not best.agreement:
        return None
    rows: list[dict[str, Any]] = [
        {
            "label": "this verdict", "note": "guarded", "mark": "tested",
            "value": best.gain, "low": best.gain_low, "high": best.gain_high,
        }
    ]  # fmt: skip
    rows += [
        {
            "label": e.name, "note": "biased" if e.biased else "", "mark": "muted",
            "value": e.value, "low": e.low, "high": e.high,
        }
        for e in best.agreement
    ]  # fmt: skip
    caption = (
        "The gain of the same policy by other estimators, each reading the same rows its own way. "
        "The unbiased ones should tell one story; those marked biased buy calm with bias, which "
        "their intervals leave out. None of them takes part in the verdict."
    )
    return Figure("forest", "Do other estimators agree?", {"rows": rows, "zero": 0.0}, caption)


def _samples(result: Improvement) -> Section | None:
    """What two language models say to the same prompts."""
    samples = result.diagnosis.get("samples") or ()
    if not samples:
        return None
    body = [
        [plain_text(s["prompt"], 160), plain_text(s["reference"], 160),
         plain_text(s["candidate"], 160),
         " → ".join(number(r, 2) for r in s["rewards"])]
        for s in samples
    ]  # fmt: skip
    head = ["Prompt", "Reference", "Candidate", "Mean reward"]
    lead = "Judging prompts on which the two models differ most, with one answer of each."
    block = Block("table", {"title": "", "head": head, "rows": body})
    return Section("samples", "What the models say", (block,), lead=lead)


# ------------------------------------------------------------------------ what could be wrong


def _wrong(result: Improvement) -> Section | None:
    blocks: list[Block] = []
    failed = [c for c in result.checks if c.ran and not c.passed]
    if failed:
        blocks.append(Block("checks", failed))
    figures = [f for f in (_calibration(result), _weights(result), _drift(result)) if f]
    if figures:
        blocks.append(Block("pictures", figures))
    overlap = _overlap_tiles(result)
    if overlap:
        blocks.append(Block("tiles", overlap))
    if result.assumptions:
        blocks.append(Block("text", "The verdict takes for granted:"))
        blocks.append(Block("list", list(result.assumptions)))
    notes = result.diagnosis.get("notes")
    if notes:
        blocks.append(Block("list", list(notes)))
    idle = [c for c in result.checks if not c.ran]
    if idle:
        blocks.append(Block("checks", idle))
    if not blocks:
        return None
    lead = (
        f"{_many(len(failed), 'check')} did not pass; a failed check can only hold back a "
        "promotion, never cause one."
        if failed
        else "No check failed. Look at the pictures with your own eyes too, and ask yourself "
        "whether the assumptions below hold: no test on a log can settle them."
        if result.assumptions
        else ""
    )
    return Section("wrong", "What could be wrong", tuple(blocks), lead=lead)


def _many(n: int, word: str) -> str:
    return f"One {word}" if n == 1 else f"{n} {word}s"


_DOT = {
    "action": "Each dot is an action: how often the log says it should be taken, against how often "
    "it was.",
    "propensity": "Each dot gathers decisions with like propensities: how often the log says an "
    "action should be taken, against how often it was.",
}


def _calibration(result: Improvement) -> Figure | None:
    table = result.diagnosis.get("calibration") or {}
    bins = [_with_interval(b) for b in table.get("bins", ())]
    if not bins:
        return None
    p_value = table.get("p_value")
    tail = f" Test of agreement: p = {p_text(p_value)}." if p_value is not None else ""
    by = table.get("by", "propensity")
    flat = by == "action" and _nearly_equal(bins)
    where = "near the dashes, which are" if flat else "on the diagonal, where both are"
    return Figure(
        "calibration",
        "Are the logged propensities right?",
        {
            "bins": bins, "flat": flat, "y": "observed frequency",
            "x": "actions" if flat else "logged propensity",
        },
        f"{_DOT[by]} Dots belong {where} {'what the log says' if flat else 'equal'}, up to their "
        f"bars (95\u00a0%).{tail}",
    )  # fmt: skip


def _nearly_equal(bins: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the predictions differ too little to be an axis."""
    predicted = [b["predicted"] for b in bins]
    return max(predicted) - min(predicted) < 0.05 * max(predicted)


def _with_interval(b: Mapping[str, Any]) -> dict[str, Any]:
    """A bin with a 95 % interval for its frequency: its own, from its standard error, or
    Wilson's."""
    if "low" not in b and b.get("error") is not None:
        return {**b, "low": b["observed"] - 1.96 * b["error"],
                "high": b["observed"] + 1.96 * b["error"]}  # fmt: skip
    n, p = b.get("count"), b.get("observed")
    if "low" in b or not n or p is None or not 0 <= p <= 1:
        return dict(b)
    z = 1.96
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {**b, "low": max(0.0, center - half), "high": min(1.0, center + half)}


def _weights(result: Improvement) -> Figure | None:
    overlap = result.diagnosis.get("overlap") or {}
    histogram = overlap.get("histogram") or {}
    if not histogram.get("counts"):
        return None
    return Figure(
        "histogram",
        "How far does the candidate leave the log?",
        {
            "edges": histogram["edges"], "counts": histogram["counts"],
            "x": "weight of a row: candidate's probability / logged propensity",
            "marks": [{"at": 1.0, "label": "as logged"}],
        },
        "At weight 1 the candidate does what the log did. Rows at 0 say nothing about it; "
        "few rows far to the right speak for many, which widens the interval.",
    )  # fmt: skip


def _overlap_tiles(result: Improvement) -> list[Number]:
    overlap = result.diagnosis.get("overlap") or {}
    tiles = []
    if overlap.get("ess") is not None:
        ess = overlap["ess"]
        part = overlap.get("ess_share")
        note = f"{percent(part)} of the rows that judged" if part is not None else ""
        tiles.append(Number("effective sample size", count(ess), ess, note))
    if overlap.get("max") is not None:
        tiles.append(Number("largest weight", number(overlap["max"], 1), overlap["max"]))
    if overlap.get("unsupported") is not None:
        tiles.append(
            Number(
                "of its choices were never logged", percent(overlap["unsupported"]),
                overlap["unsupported"],
            )
        )  # fmt: skip
    return tiles


def _drift(result: Improvement) -> Figure | None:
    drift = result.diagnosis.get("drift") or {}
    blocks = drift.get("blocks") or ()
    if len(blocks) < 2:
        return None
    axis = drift.get("axis", "order of the rows")
    labels = [str(b.get("label", i + 1)) for i, b in enumerate(blocks)]
    gains = [b.get("gain") for b in blocks]
    if sum(g is not None for g in gains) >= 2:
        lines = [_line_of("gain", blocks, "gain", "gain_low", "gain_high")]
        data = {"lines": lines, "labels": labels, "x": axis, "zero": 0.0}
        return Figure(
            "series", "Does the gain last?", data,
            "The estimated gain in consecutive parts of the log. It should not lean on one "
            "stretch of time, nor fade toward the end.",
        )  # fmt: skip
    lines = [_line_of("reward", blocks, "reward", "low", "high")]
    return Figure(
        "series", "Does the world hold still?", {"lines": lines, "labels": labels, "x": axis},
        "Mean reward in consecutive parts of the log. A drifting level does not bias the gain, "
        "which compares both policies on the same rows; it says how steady the world is.",
    )  # fmt: skip


def _line_of(name: str, blocks: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, Any]:
    value, low, high = ([b.get(key) for b in blocks] for key in keys)
    band = any(v is not None for v in low) and any(v is not None for v in high)
    return {"name": name, "values": value} | ({"low": low, "high": high} if band else {})


# ------------------------------------------------------------------------- what would settle it


def _settle(result: Improvement) -> Section | None:
    settlement = result.settlement
    if settlement is None:
        return None
    blocks: list[Block] = []
    rows = [
        {
            "label": "this log", "value": float(result.rows), "mark": "plain",
            "text": f"{count(result.rows)} rows",
        }
    ]  # fmt: skip
    if settlement.rows is not None and math.isfinite(settlement.rows):
        rows.append(_rows_row("logged as now", settlement.rows, settlement))
    for entry in settlement.exploration:
        if entry.get("rows") is not None and math.isfinite(entry["rows"]):
            rows.append(_rows_row(f"with {percent(entry['share'])} exploration", entry["rows"]))
    if len(rows) > 1 and max(row["value"] for row in rows[1:]) > result.rows:
        rows[1]["mark"] = "tested"
        caption = (
            "Rows for an 80\u00a0% chance of PROMOTE, at the gain named above; the line is their "
            "80\u00a0% range. A guide, never exact. Exploring means taking, in that share of "
            "decisions, the actions on which the two policies differ most, weighted by their noise."
        )
        data = {"rows": rows, "log": True, "zero": float(result.rows)}
        blocks.append(Block("picture", Figure("forest", "Rows it would take", data, caption)))
    costs = [e for e in settlement.exploration if e.get("cost") is not None]
    if costs:
        body = [
            [percent(e["share"]), f"about {rounded_rows(e['rows'])}", _two_digits(e["cost"])]
            for e in costs
        ]
        head = ["Share of decisions that explore", "Rows", "Reward given up per decision"]
        blocks.append(
            Block("table", {"title": "The price of exploring", "head": head, "rows": body})
        )
    if settlement.actions:
        body = [
            [a["action"], percent(a.get("now")), percent(a.get("best"))] for a in settlement.actions
        ]
        head = ["Action", "Now", "Best for proof"]
        title = "What to explore"
        blocks.append(Block("table", {"title": title, "head": head, "rows": body}))
    failed = any(c.ran and not c.passed for c in result.checks)
    lead = settlement.sentence
    if failed:
        lead = f"The failed check comes first; rows alone may not settle it. Beyond it: {lead}"
    return Section("settle", "What would settle it", tuple(blocks), lead=lead)


def _rows_row(name: str, rows: float, bounds: Any = None) -> dict[str, Any]:
    low, high = (bounds.rows_low, bounds.rows_high) if bounds is not None else (None, None)
    text = f"about {rounded_rows(rows)}"
    if low is not None and high is not None:
        text += f" ({rounded_rows(low)} to {rounded_rows(high)})"
    elif low is not None:
        text += f" ({rounded_rows(low)} or more)"
    return {"label": name, "value": rows, "low": low, "high": high, "mark": "muted", "text": text}


def _two_digits(value: float) -> str:
    return number(value, max(0, decimals(value) - 1)) if value else "0"


# ---------------------------------------------------------------------------- how to use it


def _use(result: Improvement, policy: str | None, card: Mapping[str, Any]) -> Section | None:
    blocks: list[Block] = []
    shares = _shares(result)
    if shares is not None:
        blocks.append(Block("picture", shares))
    usage = result.usage
    if not usage and policy is not None:
        usage = _ordinary_usage(policy, card)
    if policy is not None:
        blocks += [Block("code", {"title": title, "code": code}) for title, code in usage]
    if not blocks:
        return None
    if result.verdict == "PROMOTE":
        title = "What changes, and how to use the policy"
        lead = "What is handed over is exactly what was tested."
    else:
        title = "What the candidate would do"
        lead = (
            "Keep the reference. The candidate is there to look at, or to try on a small "
            "share of decisions, with its probabilities logged."
            if policy is not None and result.verdict == "HOLD"
            else "Keep the reference."
        )
    return Section("use", title, tuple(blocks), lead=lead)


def _ordinary_usage(policy: str, card: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """How to draw actions and log their propensities, for what the policy needs."""
    columns = ", ".join(plain_text(c, 24) for c in (card.get("context") or ())[:6]) or "context"
    given = str(card.get("reference", "")).startswith("given")
    call = "policy.sample(rows, reference)" if given else "policy.sample(rows)"
    lines = [
        "import surpass",
        "",
        f"policy = surpass.load({policy!r})",
        f"# rows: a table, a data frame or a dict with the columns {columns}",
    ]
    if given:
        lines.append("# reference: the old policy's probabilities, [rows, actions]")
    lines.append(f"actions, propensities = {call}  # log both")
    usage = [("In Python", "\n".join(lines))]
    if card.get("onnx") == "written":
        usage.append(("In any language, with ONNX Runtime", f"{policy}/policy.onnx"))
    return tuple(usage)


def _shares(result: Improvement) -> Figure | None:
    shares = list(result.diagnosis.get("shares") or ())
    if not shares:
        return None

    def change(row: Mapping[str, Any]) -> float:
        return (row.get("candidate") or 0.0) - (row.get("reference") or 0.0)

    kept = sorted(shares, key=lambda row: -abs(change(row)))[:_SHOWN_ACTIONS]
    kept.sort(key=lambda row: -change(row))
    rest = [row for row in shares if row not in kept]
    rows = [
        {"label": str(r["action"]), "values": [r.get("reference"), r.get("candidate")]}
        for r in kept
    ]  # fmt: skip
    if rest:
        rows.append({
            "label": f"{len(rest)} others",
            "values": [_total(rest, "reference"), _total(rest, "candidate")], "rest": True,
        })  # fmt: skip
    caption = (
        "How often each action is taken, on average over the rows that judged. Sorted by change."
    )
    data = {"rows": rows, "series": ["reference", "candidate"]}
    return Figure("bars", "Actions: reference and candidate", data, caption)


def _total(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    return float(sum(row.get(key) or 0.0 for row in rows))
