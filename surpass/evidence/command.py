"""`surpass evidence run|table|verify`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from surpass.errors import InputError
from surpass.evidence.declaration import declared
from surpass.evidence.runs import read, run_one
from surpass.registry import FAMILIES, find, systems

__all__ = ["run"]

SHADES = {"holds": "green", "fails": "red", "inconclusive": "yellow"}


def run(
    action: str,
    keys: Sequence[str],
    *,
    family: str | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    as_json: bool = False,
) -> None:
    """Run experiments, print the ledger, or verify a random sample of it with fresh seeds.

    Raises:
        InputError: when a key is no system's, or nothing is declared or held there.
    """
    for key in keys:
        find(key)
    known = systems()
    chosen = list(keys) or [k for k in known if family is None or known[k].family == family]
    if action == "table":
        _table([k for k in chosen if read(k)], as_json)
        return
    if action == "run":
        chosen = list(keys) or [k for k in chosen if k in declared()]
        if not chosen:
            raise InputError("no experiment is declared there yet; see: surpass evidence table")
        _run(chosen, seeds, jobs, as_json)
        return
    held = [k for k in chosen if read(k) and k in declared()]
    sample = held if keys else random.Random().sample(held, min(5, len(held)))
    if not sample:
        raise InputError("the ledger has no entry to verify there")
    _verify(sample, seeds, jobs, as_json)


def _run(keys: Sequence[str], seeds: int | None, jobs: int, as_json: bool) -> None:
    console = Console(stderr=as_json)
    entries = []
    for key in keys:
        with console.status(f"{key} ..."):
            wanted = None if seeds is None else range(max(seeds, 3))
            entry = run_one(
                key, wanted, jobs=jobs, say=lambda line: console.print(f"  {line}", highlight=False)
            )
        entries.append(entry)
        shade = SHADES[entry["verdict"]]
        console.print(
            f"[bold]{key}[/bold] [{shade}]{entry['verdict']}[/{shade}]: {entry['bar']}; "
            f"{entry['mean']:.4g} ({entry['low']:.4g} to {entry['high']:.4g}), "
            f"{entry['seconds']:.0f} s",
            highlight=False,
        )
    if as_json:
        print(json.dumps(entries, indent=1))


def _table(keys: Sequence[str], as_json: bool) -> None:
    entries = [e for k in keys if (e := read(k)) is not None]
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    known = systems()
    table = Table(box=None, header_style="bold", pad_edge=False)
    longest = max((len(e["key"]) for e in entries), default=0) + 2
    for column, least in (("key", longest), ("verdict", 12), ("result (95 %)", 26), ("bar", 8)):
        table.add_column(column, no_wrap=True, min_width=least)
    table.add_column("seeds", justify="right")
    for family in FAMILIES:
        own = [e for e in entries if known[e["key"]].family == family]
        if own:
            built = sum(s.built and not s.classic for s in known.values()
                        if s.family == family)  # fmt: skip
            table.add_section()
            table.add_row(f"[bold]{family}[/bold]", "", f"{len(own)} of {built} measured")
        for e in own:
            interval = f"{e['mean']:.3g} ({e['low']:.3g} to {e['high']:.3g})"
            word = f"[{SHADES[e['verdict']]}]{e['verdict']}"
            table.add_row(f"  {e['key']}", word, interval, e["bar"], str(len(e["seeds"])))
    console = Console()
    console.print(table)
    words = [e["verdict"] for e in entries]
    total = ", ".join(f"{words.count(w)} {w}" for w in ("holds", "fails", "inconclusive"))
    console.print(
        f"\n{len(entries)} entries: {total}. The result is of the first bar; all must hold. "
        "More of one: surpass show KEY",
        highlight=False,
    )


def _verify(keys: Sequence[str], seeds: int | None, jobs: int, as_json: bool) -> None:
    console = Console(stderr=as_json)
    report = []
    for key in keys:
        before = read(key)
        assert before is not None
        count = max(seeds or len(before["seeds"]), 3)
        start = 1_000 + random.Random().randrange(1_000_000)
        with console.status(f"{key} with fresh seeds ..."):
            entry = run_one(key, range(start, start + count), jobs=jobs, store=False)
        same = entry["verdict"] == before["verdict"]
        report.append(
            {
                "key": key,
                "before": before["verdict"],
                "now": entry["verdict"],
                "mean": entry["mean"],
            }
        )
        word = "confirmed" if same else f"no longer {before['verdict']}: now {entry['verdict']}"
        console.print(f"[bold]{key}[/bold]: {word} ({entry['mean']:.4g})", highlight=False)
    if as_json:
        print(json.dumps(report, indent=1))
