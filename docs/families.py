"""A page per family: what it is for, how to choose, its systems with their evidence in pictures."""

from __future__ import annotations

import html
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
WORDS = {"holds": "holds", "fails": "does not hold", "inconclusive": "open", None: "shown"}
MARKS = {"holds": "✓", "fails": "✗", "inconclusive": "○"}
LEGEND = (
    "A mark says what became of a system's claim when it was measured here: ✓ it held, ✗ it did "
    "not, ○ it is open. Without a mark it is a baseline of the field, or was not measured."
)
WIDTH, HEIGHT = 220, 50


def written() -> dict[str, dict[str, str]]:
    """The hand-written parts, by family."""
    return tomllib.loads((ROOT / "docs" / "families.toml").read_text(encoding="utf-8"))


def picture(entry: dict[str, Any]) -> str:
    """Both sides of an experiment, a dot per seed with lines at the means: ours above, the baseline
    below; the scale is written at the ends."""
    sides = (("ours", entry["ours"], 12, 0.85), ("baseline", entry["theirs"], 28, 0.4))
    values = [v for _, row, _, _ in sides for v in row]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def x(v: float) -> float:
        return 8 + (WIDTH - 16) * (v - low) / span

    drawn = []
    for name, row, y, shade in sides:
        drawn += [
            f'<circle cx="{x(v):.1f}" cy="{y}" r="4" fill="currentColor" fill-opacity="{shade}">'
            f"<title>{name}: {v:.4g}</title></circle>"
            for v in row
        ]
        mean = x(sum(row) / len(row))
        drawn.append(
            f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 7}" y2="{y + 7}" '
            'stroke="currentColor" stroke-width="1.5"/>'
        )
    for at, anchor, v in ((4, "start", low), (WIDTH - 4, "end", high)):
        drawn.append(
            f'<text x="{at}" y="{HEIGHT - 3}" text-anchor="{anchor}" font-size="9" '
            f'fill="currentColor" fill-opacity="0.6">{v:.3g}</text>'
        )
    label = html.escape(f"{entry['metric']}: {low:.4g} to {high:.4g}, ours above, baseline below")
    label = label.replace("|", "&#124;")  # a bar would end the table's cell
    frame = f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
    return frame + "".join(drawn) + "</svg>"


def entry_of(key: str) -> dict[str, Any] | None:
    """A system's entry in the ledger."""
    path = ROOT / "surpass" / "evidence" / "ledger" / f"{key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def evidence(key: str) -> str:
    """The cell of a system: its verdict, the picture, the numbers, and what else was measured."""
    entry = entry_of(key)
    if entry is None:
        return "not measured yet"
    ours, theirs = (sum(entry[s]) / len(entry[s]) for s in ("ours", "theirs"))
    numbers = _safe(f"{entry['metric']}: {ours:.4g} against {theirs:.4g} ({entry['baseline']})")
    note = f"<br><em>{_safe(entry['note'])}</em>" if entry.get("note") else ""
    word = f"<strong>{WORDS[entry['verdict']]}</strong>"
    return f"{word}<br>{picture(entry)}<br>{numbers}{note}{_further(entry)}"


def _further(entry: dict[str, Any]) -> str:
    """The other bars, folded away: how many hold, and each with its interval."""
    judged = [a for a in entry["also"] if a["bar"]]
    if not judged:
        return ""
    held = sum(a["verdict"] == "holds" for a in judged)
    lines = "".join(
        f"<li>{_safe(a['metric'])}: {WORDS[a['verdict']]} ({_safe(a['bar'])}; {a['mean']:.3g}, "
        f"{a['low']:.3g} to {a['high']:.3g})</li>"
        for a in judged
    )
    return (
        f"<details><summary>{held} of {len(judged)} further bars hold</summary>"
        f"<ul>{lines}</ul></details>"
    )


def page(family: str, text: dict[str, str]) -> str:
    """One family's page."""
    from surpass.registry import systems

    rows = [s for s in systems().values() if s.family == family]
    built = [s for s in rows if s.built]
    named = [s for s in built if not s.classic]
    lines = [f"# {text['title']}\n", text["what"].strip() + "\n"]
    lines += ["## How to choose\n", _honest(text["choose"].strip()) + "\n", LEGEND + "\n"]
    if text.get("start"):
        lines += ["## Start here\n", text["start"].strip() + "\n"]
    lines += [f"## What is built ({len(built)} of {len(rows)})\n", _tally(named)]
    if named:
        lines += ["| system | what it does | evidence |", "|---|---|---|"]
        lines += [
            f"| `{s.key}` | {_cell(s.summary or s.paper)} | {evidence(s.key)} |"
            for s in sorted(named, key=lambda s: entry_of(s.key) is None)
        ]
    classics = [s for s in built if s.classic]
    if classics:
        lines += ["\n## The baselines of the field\n", "| system | paper |", "|---|---|"]
        lines += [f"| `{s.key}` | {_safe(s.paper)} |" for s in classics]
    later = [s for s in rows if not s.built]
    if later:
        lines += ["\n## In the catalog, not built yet\n", "| system | what it is |", "|---|---|"]
        lines += [f"| `{s.key}` | {_cell(s.summary or s.paper)} |" for s in later]
    return "\n".join(lines) + "\n"


def _tally(built: list[Any]) -> str:
    """How many were measured, and with what result; how to read the pictures."""
    words = [e["verdict"] for s in built if (e := entry_of(s.key))]
    if not words:
        return "None of these has been measured against its claim yet.\n"
    parts = ", ".join(
        f"{words.count(w)} {said}" for w, said in (
            ("holds", "hold"), ("fails", "do not"), ("inconclusive", "are open"))
    )  # fmt: skip
    return (
        f"The claims of {len(words)} were measured: {parts}. In a picture every seed is a dot, "
        "ours in the upper row and the baseline in the lower one, with a line at each mean. A "
        "claim holds when all its bars do, each by the 95 % interval of the mean over seeds.\n"
    )


def _honest(text: str) -> str:
    """The advice, marking systems that cannot be run yet and what evidence says of the others."""
    from surpass.registry import systems

    known = systems()

    def mark(match: re.Match[str]) -> str:
        if match[1] not in known:
            return match[0]
        if not known[match[1]].built:
            return match[0] + " (not built yet)"
        entry = entry_of(match[1])
        return match[0] + (" " + MARKS[entry["verdict"]] if entry else "")

    return re.sub(r"`([\w-]+)`", mark, text)


def _cell(text: str) -> str:
    """The first sentence of a summary; "e.g. users" ends none."""
    return _safe(re.split(r"\. (?=[A-Z])", text)[0].rstrip(".") + ".")


def _safe(text: str) -> str:
    """Text inside a table."""
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", html.escape(text))


def on_config(config: Any) -> Any:
    """Put the families before the reference."""
    sys.path.insert(0, str(ROOT))
    pages = [{text["title"]: f"families/{name}.md"} for name, text in written().items()]
    config["nav"] = [*config["nav"], {"Families": pages}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add a page per family."""
    for name, text in written().items():
        files.append(File.generated(config, f"families/{name}.md", content=page(name, text)))
    return files
