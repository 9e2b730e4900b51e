"""The verdict without a browser: a short Markdown file, and a summary for the console."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from surpass.improve.wording import (
    NOTHING,
    confidence,
    count,
    decimals,
    gain_line,
    given,
    headline,
    label,
    number,
    percent,
    plain_text,
)

if TYPE_CHECKING:
    from surpass.improve.improvement import Improvement
    from surpass.improve.results import CandidateResult, Estimate

__all__ = ["console", "markdown"]

_COLOR = {"PROMOTE": "green", "HOLD": "yellow", "REJECT": "red"}
_SHOWN = 5


def escape(text: object, longest: int = 400) -> str:
    """A text from the data, so that Markdown and the HTML inside it leave it alone."""
    line = plain_text(text, longest)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line)


def markdown(result: Improvement) -> str:
    """The verdict in a few lines of Markdown, for a pull request or a message."""
    lines = [
        f"# {result.verdict}: {escape(result.log, 80)}",
        "",
        f"**{headline(result)}** {escape(result.reason)}",
        "",
    ]
    gain = gain_line(result)
    if gain:
        lines += [f"{gain}. {confidence(result.level)}.", ""]
    lines += [
        "| | value | from | to |",
        "|---|---:|---:|---:|",
        _row("reference", result.reference),
    ]
    if result.best is not None:
        lines.append(_row(escape(label(result.best), 80), result.best))
    lines += ["", *_findings(result)]
    lines += [
        f"{count(result.rows)} rows, level {percent(result.level)}, margin "
        f"{given(result.margin)}, seed {result.seed}. The pictures are in report.html, all "
        "numbers in report.json.",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, estimate: Estimate | CandidateResult) -> str:
    places = decimals(estimate.low, estimate.value, estimate.high)
    cells = (number(v, places) for v in (estimate.value, estimate.low, estimate.high))
    return f"| {name} | " + " | ".join(cells) + " |"


def _findings(result: Improvement) -> list[str]:
    lines: list[str] = []
    failed = [c for c in result.checks if c.ran and not c.passed]
    if failed:
        lines += [
            "Did not pass:",
            "",
            *(f"- {escape(c.name)}: {escape(c.reason)}" for c in failed),
            "",
        ]
    if result.settlement is not None:
        lines += [f"What would settle it: {escape(result.settlement.sentence, 800)}", ""]
    if result.assumptions:
        lines += ["Taken for granted:", "", *(f"- {escape(a)}" for a in result.assumptions), ""]
    return lines


def console(result: Improvement) -> RenderableType:
    """The verdict for `rich.print`: a panel, the leading candidates, and what did not pass."""
    color = _COLOR[result.verdict]
    body = Text()
    body.append(headline(result) + "\n", style="bold")
    body.append(plain_text(result.reason, 600))
    gain = gain_line(result)
    if gain:
        body.append(f"\n\n{gain}.", style=color)
        body.append(f"\n{confidence(result.level)}.", style="dim")
    if result.settlement is not None:
        body.append(f"\n\n{plain_text(result.settlement.sentence, 800)}")
    panel = Panel(
        body,
        title=Text(f" {result.verdict} ", style=f"bold reverse {color}"),
        subtitle=Text(plain_text(result.log), style="dim"),
        border_style=color,
        padding=(1, 2),
    )
    parts: list[RenderableType] = [panel]
    if result.candidates:
        parts.append(_candidates(result))
    for why in result.diagnosis.get("estimators") or ():
        parts.append(Text(plain_text(why, 400), style="dim"))
    for check in result.checks:
        if check.ran and not check.passed:
            line = Text("✗ ", style="red")
            line.append(f"{plain_text(check.name)}: ", style="bold")
            line.append(plain_text(check.reason, 400))
            parts.append(line)
    return Group(*parts)


def _candidates(result: Improvement) -> Table:
    """The tested candidate and the next ones by gain."""
    ordered = sorted(result.candidates, key=lambda c: (not c.tested, -c.gain))
    lead = ordered[0]
    places = decimals(lead.gain_low, lead.gain, lead.gain_high)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("candidate", overflow="fold")
    for name in ("gain", "from", "to", "eff. rows"):
        table.add_column(name, justify="right")
    for c in ordered[:_SHOWN]:
        cells = [number(v, places, sign=True) for v in (c.gain, c.gain_low, c.gain_high)]
        ess = count(c.ess) if math.isfinite(c.ess) else NOTHING
        name = Text(label(c), style="bold" if c.tested else "dim")
        name.append(" (tested)" if c.tested else "")
        table.add_row(name, *cells, ess, style="" if c.tested else "dim")
    hidden = len(ordered) - _SHOWN
    if hidden > 0:
        table.caption = Text(f"and {hidden} more, in the report", style="dim")
        table.caption_justify = "left"
    return table
