"""Trees of parts and forms as JSON that names what is registered; nothing in a file is code."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from surpass.errors import InputError
from surpass.parts.part import PARTS, Part, children, known_module, rebuild
from surpass.parts.schedules import Schedule

__all__ = ["from_json", "to_json"]


def to_json(tree: Any) -> Any:
    """A tree of parts and forms as plain JSON that names registered parts only.

    Raises:
        InputError: when the tree holds something that is code, such as a lambda.
    """
    if isinstance(tree, Part):
        values = {k: to_json(v) for k, v in tree.values}
        if tree.combined:
            return {"combine": tree.kind, **values}
        if tree.definition.home not in PARTS:
            raise InputError(
                f"{tree.name} is not a registered part, so it cannot be stored; use @part"
            )
        return {"part": tree.definition.home, **values}
    if isinstance(tree, Schedule):
        own = {"schedule": tree.shape, "start": tree.start, "end": tree.end, "steps": tree.steps}
        own |= {"after": tree.after} if tree.after else {}
        return own | ({"every": tree.every} if tree.every > 1 else {})
    if is_dataclass(tree) and not isinstance(tree, type):
        name = f"{type(tree).__module__.removeprefix('surpass.')}.{type(tree).__qualname__}"
        return {"form": name, **{k: to_json(v) for k, v in children(tree)}}
    if isinstance(tree, Mapping):
        return {"map": {str(k): to_json(v) for k, v in tree.items()}}
    if isinstance(tree, tuple | list):
        return [to_json(v) for v in tree]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise InputError(f"{tree!r} cannot be stored as JSON")


def from_json(data: Any) -> Any:
    """The tree that `to_json` wrote.

    Raises:
        InputError: when it names a part or a form that does not exist (nothing in a file is run).
    """
    if isinstance(data, list):
        return tuple(from_json(v) for v in data)
    if not isinstance(data, dict):
        return data
    if "map" in data:
        return {k: from_json(v) for k, v in data["map"].items()}
    if "schedule" in data and "part" not in data:  # a part may have a hyperparameter of that name
        return Schedule(data["schedule"], data["start"], data["end"], data["steps"],
                        data.get("after", 0), data.get("every", 1))  # fmt: skip
    if "form" in data:
        room, _, name = str(data["form"]).rpartition(".")
        cls = (
            getattr(importlib.import_module(f"surpass.{room}"), name, None)
            if known_module(room)
            else None
        )
        if not (isinstance(cls, type) and is_dataclass(cls)):
            raise InputError(f"unknown form {data['form']!r}; written by another version?")
        return cls(**{k: from_json(v) for k, v in data.items() if k != "form"})
    head = "combine" if "combine" in data else "part"
    values = tuple((k, from_json(v)) for k, v in data.items() if k != head)
    return rebuild(data[head], values)
