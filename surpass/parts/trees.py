"""Looking into a tree of parts and forms: its leaves, schedules and needs; setting one entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from surpass.errors import InputError, nearest
from surpass.parts.part import Part, children, own_needs
from surpass.parts.schedules import Schedule

__all__ = ["leaves", "needs_of", "schedules", "set_at"]

Path = tuple[str, ...]


def leaves(tree: Any, at: Path = ()) -> Iterator[tuple[str, Part[..., Any]]]:
    """Every part of a tree (or of a form that holds parts) that is not a combination, with its
    dotted path."""
    if isinstance(tree, Part):
        if not tree.combined:
            yield ".".join(at), tree
        for name, value in tree.hyper.items():
            yield from leaves(value, (*at, name))
    else:
        for name, value in children(tree):
            yield from leaves(value, (*at, name))


def schedules(tree: Any, at: Path = ()) -> dict[str, Schedule]:
    """Every schedule of a tree, by its dotted path."""
    if isinstance(tree, Schedule):
        return {".".join(at): tree}
    items = tree.hyper.items() if isinstance(tree, Part) else children(tree)
    found: dict[str, Schedule] = {}
    for name, value in items:
        found |= schedules(value, (*at, name))
    return found


def needs_of(tree: Any) -> tuple[Any, ...]:
    """What the parts of a tree need to be given (statistics and columns), each once, in order."""
    found: dict[Any, None] = {}
    for _, leaf in leaves(tree):
        found |= dict.fromkeys(own_needs(leaf))
    return tuple(found)


def set_at(tree: Any, path: str, value: Any) -> Any:
    """A copy of a tree with one entry replaced: `set_at(form, "trust.high", 0.3)`.

    Combinations are looked through: `trust.high` finds `high` in the first part of a sum that has
    it.

    Raises:
        InputError: when there is no such entry, naming what there is.
    """
    head, _, rest = path.partition(".")
    if isinstance(tree, Part):
        hyper = tree.hyper
        if head in hyper:
            new = set_at(hyper[head], rest, value) if rest else _like(hyper[head], value, path)
            return Part(tree.definition, tuple({**dict(tree.values), head: new}.items()))
        if tree.combined:
            for name, inner in hyper.items():
                if isinstance(inner, Part) and path.split(".")[0] in _reachable(inner):
                    return set_at(tree, f"{name}.{path}", value)
        raise InputError(f"{tree!r} has no {head!r}; it has {', '.join(hyper) or 'nothing to set'}")
    names = dict(children(tree))
    if head not in names:
        hint = nearest(head, list(names))
        raise InputError(f"{type(tree).__name__} has no {head!r}{hint}; it has {', '.join(names)}")
    new = set_at(names[head], rest, value) if rest else _like(names[head], value, path)
    if isinstance(tree, Mapping):
        return {**tree, head: new}
    if isinstance(tree, tuple):
        return tuple(new if str(i) == head else v for i, v in enumerate(tree))
    return replace(tree, **{head: new})


def _reachable(tree: Part[..., Any]) -> set[str]:
    names = set(tree.hyper)
    if tree.combined:
        for inner in tree.hyper.values():
            names |= _reachable(inner) if isinstance(inner, Part) else set()
    return names


def _like(old: Any, value: Any, path: str) -> Any:
    """`value`, read as the type of what it replaces when it comes as text from the command line."""
    if not isinstance(value, str) or isinstance(old, str):
        return value
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(old, int) and not isinstance(old, bool):
            return int(value) if value.lstrip("+-").isdigit() else float(value)
        if isinstance(old, float | Schedule) or old is None:
            return float(value)
        if isinstance(old, tuple):
            return tuple(float(v) for v in value.strip("()[]").split(","))
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}={value}: {type(old).__name__} expected, as in {old!r}") from error
    raise InputError(f"{path} is {old!r}; set one of its hyperparameters, as in {path}.NAME=VALUE")
