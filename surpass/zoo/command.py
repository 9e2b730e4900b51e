"""`surpass zoo list|build`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from surpass.errors import InputError
from surpass.zoo.control import SCHOOLS
from surpass.zoo.control import references as store_references
from surpass.zoo.shelf import Zoo, items

__all__ = ["run"]


def run(
    action: str,
    names: Sequence[str] = (),
    *,
    all: bool = False,
    small: bool = False,
    force: bool = False,
    references: bool = False,
) -> None:
    """List what there is, or build: by name, the small set, or all of it.

    Raises:
        InputError: when there is no such name, or nothing is named.
    """
    console, zoo = Console(), Zoo()
    known = items()
    if action == "list":
        console.print(_shelf(zoo))
        return
    wanted = [n for n, entry in known.items() if all or (small and entry.small)]
    wanted += [n for n in names if n not in wanted]
    if not wanted:
        raise InputError("name what to build (surpass zoo list), or give --all or --small")
    for name in wanted:
        zoo.find(name)
    for name in wanted:
        there = zoo.has(name) and not force
        with console.status(f"building {name} (about {known[name].minutes:g} min)"):
            place = zoo.build(name, force=force)
        how = "there" if there else f"{zoo.provenance(name)['seconds']:.0f} s"
        console.print(f"{name} ({how}): {place}", highlight=False)
    if references:
        for school in SCHOOLS:
            if f"{school}-policies" in wanted:
                store_references(zoo, school)
                console.print(f"{school}: its 0 and 100 are stored", highlight=False)


def _shelf(zoo: Zoo) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "built", "minutes", "what"):
        table.add_column(column, no_wrap=column == "name")
    for name, entry in items().items():
        table.add_row(name, "yes" if zoo.has(name) else "-", f"{entry.minutes:g}", entry.line)
    return table
