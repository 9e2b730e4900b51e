"""`surpass zoo list|build`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from surpass.zoo.shelf import Zoo, items

__all__ = ["run"]


def run(action: str, names: Sequence[str], *, force: bool = False) -> None:
    """List what there is, or build by name (all of it by default)."""
    console, zoo = Console(), Zoo()
    known = items()
    if action == "list":
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("name", "built", "minutes", "what"):
            table.add_column(column, no_wrap=column == "name")
        for name, entry in known.items():
            table.add_row(name, "yes" if zoo.has(name) else "-", f"{entry.minutes:g}", entry.line)
        console.print(table)
        return
    for name in names or list(known):
        zoo.find(name)
    for name in names or list(known):
        with console.status(f"building {name} (about {known[name].minutes:g} min)"):
            place = zoo.build(name, force=force)
        console.print(f"{name}: {place}", highlight=False)
