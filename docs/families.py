"""A page per family: what it is for, how to choose, its systems with their evidence in pictures."""

from __future__ import annotations

import html
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
WORDS = {"holds": "holds", "fails": "does not hold", "inconclusive": "open"}
WIDTH, HEIGHT = 220, 34


def written() -> dict[str, dict[str, str]]:
    """The hand-written parts, by family."""
    return tomllib.loads((ROOT / "docs" / "families.toml").read_text(encoding="utf-8"))


def picture(entry: dict[str, Any]) -> str:
    """Both sides of an experiment, a dot per seed: ours above, the baseline below."""
    sides = (("ours", entry["ours"], 10, 1.0), ("baseline", entry["theirs"], 24, 0.45))
    values = [v for _, row, _, _ in sides for v in row]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    dots = []
    for name, row, y, shade in sides:
        for v in row:
            x = 8 + (WIDTH - 16) * (v - low) / span
            dots.append(
                f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="currentColor" fill-opacity="{shade}">'
                f"<title>{name}: {v:.4g}</title></circle>"
            )
    label = html.escape(f"{entry['metric']}: {low:.4g} to {high:.4g}, ours above, baseline below")
    frame = f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
    return frame + "".join(dots) + "</svg>"


def evidence(key: str) -> str:
    """The cell of a system: its verdict, the numbers and the picture."""
    path = ROOT / "surpass" / "evidence" / "ledger" / f"{key}.json"
    if not path.exists():
        return "not measured yet"
    entry = json.loads(path.read_text(encoding="utf-8"))
    ours, theirs = (sum(entry[s]) / len(entry[s]) for s in ("ours", "theirs"))
    numbers = html.escape(
        f"{entry['metric']}: {ours:.4g} against {theirs:.4g} ({entry['baseline']})"
    )
    note = f"<br><em>{html.escape(entry['note'])}</em>" if entry.get("note") else ""
    return f"<strong>{WORDS[entry['verdict']]}</strong><br>{picture(entry)}<br>{numbers}{note}"


def page(family: str, text: dict[str, str]) -> str:
    """One family's page."""
    from surpass.registry import systems

    rows = [s for s in systems().values() if s.family == family]
    built = [s for s in rows if s.form]
    lines = [f"# {text['title']}\n", text["what"].strip() + "\n", "## How to choose\n"]
    lines += [text["choose"].strip() + "\n"]
    lines += [f"## What is built ({len(built)} of {len(rows)})\n"]
    if built:
        lines += ["| system | what it does | evidence |", "|---|---|---|"]
        lines += [
            f"| `{s.key}` | {_cell(s.summary or s.paper)} | {evidence(s.key)} |" for s in built
        ]
    later = [s for s in rows if not s.form]
    if later:
        lines += ["\n## In the catalogue, not built yet\n", "| system | what it is |", "|---|---|"]
        lines += [f"| `{s.key}` | {_cell(s.summary or s.paper)} |" for s in later]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    first = text.split(". ")[0].rstrip(".") + "."
    return html.escape(first).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


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
