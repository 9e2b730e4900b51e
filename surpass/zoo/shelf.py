"""The shelf: what the zoo holds, built once into the user's cache, verified by checksum whenever
it is used.

@item("point-medium", line="POINT, a wrong goal per episode", load=read_transitions, minutes=0.2)
def point_medium(folder: Path, zoo: Zoo) -> dict: ...      # writes files, returns provenance

Zoo()("point-medium")                                        # builds it when it is not there
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from surpass.errors import InputError, atomic_dir, nearest

__all__ = ["Item", "Zoo", "cache_folder", "item", "items"]

PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Item:
    """Something the zoo can build.

    Attributes:
        build: writes its files into a folder and returns its provenance (seed, steps, scores),
            plain values.
        load: reads what `build` wrote.
        minutes: about how long building takes on two cores.
        version: raise it when `build` changes what it writes.
        small: part of the set that tests use.
    """

    name: str
    line: str
    build: Callable[[Path, Zoo], dict[str, Any]]
    load: Callable[[Path], Any]
    minutes: float = 1.0
    version: int = 1
    small: bool = False


_ITEMS: dict[str, Item] = {}


def item(
    name: str,
    *,
    line: str,
    load: Callable[[Path], Any],
    minutes: float = 1.0,
    version: int = 1,
    small: bool = False,
) -> Callable[[Callable[[Path, Zoo], dict[str, Any]]], Callable[[Path, Zoo], dict[str, Any]]]:
    """Put something on the shelf under a name."""

    def register(
        build: Callable[[Path, Zoo], dict[str, Any]],
    ) -> Callable[[Path, Zoo], dict[str, Any]]:
        _ITEMS[name] = Item(name, line, build, load, minutes, version, small)
        return build

    return register


def items() -> dict[str, Item]:
    """Everything the zoo can build, by name."""
    import surpass.zoo

    for module in pkgutil.iter_modules(surpass.zoo.__path__, "surpass.zoo."):
        importlib.import_module(module.name)
    return _ITEMS


def cache_folder() -> Path:
    """Where the zoo lives: the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "surpass" / "zoo"


@dataclass(frozen=True)
class Zoo:
    """Loads by name what the zoo holds, building it first where it is not there.

    `say` is told when something has to be built.
    """

    say: Callable[[str], None] = lambda _: None
    folder: Path | None = None

    def __call__(self, name: str) -> Any:
        """What that name stands for: a log, a policy, a model.

        Raises:
            InputError: when there is no such name, or a cached file was changed since it was built.
        """
        found = self.find(name)
        place = self.build(name)
        self._verify(place)
        return found.load(place)

    def find(self, name: str) -> Item:
        """How a name is built and read.

        Raises:
            InputError: when there is no such name.
        """
        known = items()
        if name not in known:
            hint = nearest(name, list(known))
            raise InputError(f"the zoo has no {name!r}{hint}; see: surpass zoo list")
        return known[name]

    def place(self, name: str) -> Path:
        """Where it is, or will be."""
        return (self.folder or cache_folder()) / f"{name}-v{self.find(name).version}"

    def has(self, name: str) -> bool:
        """Whether it is built."""
        return (self.place(name) / PROVENANCE).exists()

    def provenance(self, name: str) -> dict[str, Any]:
        """How it was made."""
        return json.loads((self.place(name) / PROVENANCE).read_text(encoding="utf-8"))

    def build(self, name: str, *, force: bool = False) -> Path:
        """Build it unless it is there; whole or not at all."""
        found, place = self.find(name), self.place(name)
        if self.has(name) and not force:
            return place
        if force:
            shutil.rmtree(self.workshop(name), ignore_errors=True)
        self.say(f"building {name} (about {found.minutes:g} min)")
        start = time.perf_counter()
        with atomic_dir(place, overwrite=True) as folder:
            made = found.build(folder, self)
            files = {
                p.relative_to(folder).as_posix(): _checksum(p)
                for p in sorted(folder.rglob("*"))
                if p.is_file()
            }
            note = {
                "name": name,
                "version": found.version,
                "files": files,
                "made": made,
                "seconds": round(time.perf_counter() - start, 1),
                "machine": platform.machine(),
                "date": datetime.now(UTC).date().isoformat(),
            }
            (folder / PROVENANCE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(self.workshop(name), ignore_errors=True)
        return place

    def workshop(self, name: str) -> Path:
        """A folder that outlives a build that was stopped, for checkpoints; gone once it is
        built."""
        place = self.place(name)
        return place.with_name(f".{place.name}.work")

    def _verify(self, place: Path) -> None:
        note = json.loads((place / PROVENANCE).read_text(encoding="utf-8"))
        for file, wanted in note["files"].items():
            path = place / file
            if not path.exists() or _checksum(path) != wanted:
                raise InputError(
                    f"{path} is not what the zoo built; build it again: "
                    f"surpass zoo build {note['name']} --force"
                )


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
