"""What exists: every system's key, name, paper, family and kind, and where its recipe stands.

`systems.toml` names them all, built or not; a recipe is found by its decorator, `@system("iql")`,
and its form by the function's return annotation. Nothing here imports torch: `surpass list`
answers at once.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from surpass.errors import InputError, nearest

__all__ = ["FAMILIES", "System", "build", "find", "recipe", "system", "systems"]

HERE = Path(__file__).parent
LEDGER = HERE / "evidence" / "ledger"
FAMILIES = (
    "ope", "theory", "offline", "settings", "generative", "online", "agents", "preference", "rlvr",
)  # fmt: skip

Recipe = TypeVar("Recipe", bound=Callable[..., Any])
_RECIPES: dict[str, Callable[..., Any]] = {}
_DECORATED = re.compile(
    r'^@system\(\s*"([^"]+)"[^\n]*\)[^\n]*\n(?:^@[^\n]*\n)*'
    r"^def (\w+)\((.*?)\)\s*->\s*([\w\[\], .|]+):",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class System:
    """One system: `form`, `module` and `function` are empty until its recipe is built; where there
    is no recipe to write, `systems.toml` names the module that does what it is for. `classic` ones
    are the baselines of the field that are not in the catalog. `evidence` is None, "holds", "fails"
    or "inconclusive"."""

    key: str
    name: str
    paper: str
    family: str
    kind: str
    summary: str = ""
    classic: bool = False
    form: str = ""
    module: str = ""
    function: str = ""
    evidence: str | None = None

    @property
    def built(self) -> bool:
        """Whether it can be used."""
        return bool(self.module)


def system(key: str) -> Callable[[Recipe], Recipe]:
    """Register a recipe under its key.

    Raises:
        InputError: when `systems.toml` has no such key: name, paper, family and kind must be
            stated there.
    """

    def register(function: Recipe) -> Recipe:
        known = systems()
        if key.split(":")[0] not in known:
            raise InputError(f"@system({key!r}): add its name and paper to systems.toml first")
        _RECIPES[key] = function
        function.key = key  # type: ignore[attr-defined]
        return function

    return register


@cache
def _found() -> dict[str, tuple[str, str, str]]:
    """Where each recipe stands, read from the source: key -> (module, function, form)."""
    places: dict[str, tuple[str, str, str]] = {}
    for path in sorted((HERE / "methods").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "@system(" not in text:
            continue
        module = "surpass." + ".".join(path.relative_to(HERE).with_suffix("").parts)
        for match in _DECORATED.finditer(text):
            key, function, _, form = match.groups()
            places[key] = (module.removesuffix(".__init__"), function, form.strip())
    return places


@cache
def systems() -> dict[str, System]:
    """All systems by key, in the order of the families."""
    entries = tomllib.loads((HERE / "systems.toml").read_text(encoding="utf-8"))["system"]
    places = _found()
    out = {}
    for entry in entries:
        module, function, form = places.get(entry["key"], (entry.pop("module", ""), "", ""))
        out[entry["key"]] = System(
            **entry, form=form, module=module, function=function, evidence=_verdict(entry["key"])
        )
    return out


def _verdict(key: str) -> str | None:
    path = LEDGER / f"{key}.json"
    return json.loads(path.read_text(encoding="utf-8")).get("verdict") if path.exists() else None


def find(key: str) -> System:
    """The system of that key.

    Raises:
        InputError: when there is none, naming the nearest.
    """
    known = systems()
    if key.split(":")[0] not in known:
        hint = nearest(key, list(known))
        raise InputError(f"there is no system {key!r}{hint}; see: surpass list")
    return known[key.split(":")[0]]


def recipe(key: str) -> Callable[..., Any]:
    """The function that builds a system's form.

    Raises:
        InputError: when there is no such system, or it is not built yet.
    """
    entry = find(key)
    if key not in _RECIPES:
        place = _found().get(key)
        if place is None and entry.key in _found():
            kin = [k for k in _found() if k.startswith(f"{entry.key}:")]
            has = f"it has {', '.join(kin)}" if kin else "it has none"
            raise InputError(f"{entry.key} has no variant {key.partition(':')[2]!r}; {has}")
        if place is None and entry.built:
            raise InputError(f"{key} has no recipe; surpass show {entry.key} says where it is")
        if place is None:
            raise InputError(f"{key} ({entry.paper}) is in the catalog, but not built yet")
        importlib.import_module(place[0])
    return _RECIPES[key]


def build(key: str, **hyper: Any) -> Any:
    """A system's form with some hyperparameters set.

    Raises:
        InputError: when a hyperparameter is misspelled, naming those there are, or one without a
            default is missing.
    """
    function = recipe(key)
    known = inspect.signature(function).parameters
    missing = [n for n, p in known.items() if p.default is p.empty and n not in hyper]
    for name in hyper:
        if name not in known:
            hint = nearest(name, list(known))
            raise InputError(f"{key} has no {name!r}{hint}; it has {', '.join(known)}")
    if missing:
        raise InputError(f"{key} needs {', '.join(missing)}; surpass show {key} says what they are")
    return function(**hyper)
