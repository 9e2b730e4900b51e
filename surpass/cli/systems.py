"""What exists and how well it holds: list, show, evidence."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

__all__ = ["evidence", "list_systems", "show"]

Family = Literal[
    "ope", "theory", "offline", "settings", "generative", "online", "agents", "preference", "rlvr"
]


def list_systems(*, family: Family | None = None, built: bool = False, as_json: Annotated[bool, arg(name="json")] = False) -> None:  # fmt: skip  # noqa: E501
    """What exists: every system with its family, form and evidence.

    Args:
        family: Only this family.
        built: Only systems that can be run.
        as_json: As a JSON array of {key, name, paper, family, form, kind, evidence}.
    """
    from surpass.registry import systems

    chosen = [
        s
        for s in systems().values()
        if (family is None or s.family == family) and (not built or s.built)
    ]
    if as_json:
        fields = ("key", "name", "paper", "family", "form", "kind", "evidence")
        print(json.dumps([{f: getattr(s, f) or None for f in fields} for s in chosen], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table(box=None, header_style="bold", pad_edge=False)
    left = console.width
    for column in ("key", "family", "form", "evidence"):
        width = max(len(column), *(len(str(getattr(s, column) or "-")) for s in chosen))
        table.add_column(column, no_wrap=True, width=width)
        left -= width + 2
    table.add_column("paper", overflow="ellipsis", no_wrap=True, width=max(left, 10))
    for s in chosen:
        shade = "" if s.built else "dim"
        table.add_row(s.key, s.family, s.form or "-", s.evidence or "-", s.paper, style=shade)
    console.print(table)
    ready = sum(s.built for s in chosen)
    console.print(f"\n{len(chosen)} systems, {ready} built. More of one: surpass show KEY")


def show(key: Positional[str], /) -> None:
    """One system: what it is for, its paper, its recipe with the defaults, and its evidence.

    Args:
        key: As in `surpass list`.
    """
    import importlib
    import inspect

    from rich.console import Console

    from surpass.registry import LEDGER, find

    entry, console = find(key), Console()
    console.print(f"[bold]{key}[/bold]  {entry.name}", highlight=False)
    console.print(f"{entry.paper}\n[dim]{entry.family} · {entry.kind}[/dim]\n", highlight=False)
    if entry.summary:
        console.print(entry.summary + "\n", highlight=False)
    if not entry.built:
        console.print("Not built yet.")
        return
    if entry.form:
        _print_recipe(console, key)
    else:  # there is no recipe to print, but a module that does it
        module = importlib.import_module(entry.module)
        console.print(inspect.getdoc(module) or "", highlight=False, markup=False)
        console.print(f"\n[dim]{entry.module}[/dim]")
    path = LEDGER / f"{entry.key}.json"
    if path.exists():
        from surpass.evidence.runs import describe_entry

        console.print(describe_entry(path), highlight=False, markup=False)


def _print_recipe(console: Any, key: str) -> None:
    """A recipe or a variant of one: its signature, formula, place and form."""
    import inspect
    import re

    from rich.markup import escape

    from surpass.registry import recipe

    function = recipe(key)
    # Annotations are kept as text, which Python prints in quotes.
    signature = escape(re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function))))
    console.print(f"[bold]{function.__name__}{signature}[/bold]", highlight=False)
    console.print(inspect.getdoc(function) or "", highlight=False, markup=False)
    console.print(f"\n[dim]{function.__module__}[/dim]")
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if not required:
        _print_form(console, function())


def _print_form(console: Any, form: Any) -> None:
    console.print(f"\n[bold]{type(form).__name__}[/bold]")
    for name in getattr(form, "__dataclass_fields__", {}):
        value = getattr(form, name)
        if value not in (None, (), {}):
            console.print(f"  {name}: {value!r}", highlight=False, markup=False)


def evidence(
    action: Positional[Literal["run", "table", "verify"]],
    keys: Positional[tuple[str, ...]] = (),
    /,
    *,
    family: Family | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """What each system's claim came to when it was measured.

    Args:
        action: run experiments, print the table, or verify a random sample with fresh seeds.
        keys: Systems, by key.
        family: All systems of a family.
        seeds: Run this many seeds, at least three.
        jobs: Experiments side by side.
        as_json: Print JSON.
    """
    from surpass.evidence.command import run

    run(action, keys, family=family, seeds=seeds, jobs=jobs, as_json=as_json)
