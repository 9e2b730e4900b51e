"""What the library says when something is wrong: one clear line, and where files go while they are
written."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

__all__ = [
    "InputError", "MissingExtra", "atomic", "atomic_dir", "extra", "nearest", "refuse_unwritable",
]  # fmt: skip


class InputError(ValueError):
    """The input cannot be used: what is wrong, where, and how to mend it, in one line.

    The command line prints the line and ends with exit status 2.
    """


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


_EXTRA_OF = {
    "gymnasium": "control", "mujoco": "control", "minari": "control", "h5py": "control",
    "tensorboard": "control", "transformers": "language", "peft": "language",
    "tokenizers": "language", "datasets": "language", "math_verify": "language",
    "onnx": "serve", "onnxruntime": "serve", "fastapi": "serve", "uvicorn": "serve",
    "scienceworld": "agents",
}  # fmt: skip


def extra(module: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtra: when it is not installed, naming the extra, as in `pip install
            surpass[serve]`, or the package itself where no extra brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if package not in _EXTRA_OF:
            raise MissingExtra(f"{package} is not installed: pip install {package}") from error
        raise MissingExtra(
            f"{package} is not installed; it comes with the extra: "
            f"pip install 'surpass[{_EXTRA_OF[package]}]'"
        ) from error


def nearest(word: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """A hint for a misspelled name: ` (did you mean 'iql'?)`, or the empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refuse_unwritable(path: str | Path, option: str = "--out") -> None:
    """Say before long work that what it makes could not be written there.

    Raises:
        InputError: when the nearest folder that exists is a file, or cannot be written.
    """
    parent = Path(path).parent
    place = parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = f"{place} is a file" if not place.is_dir() else "permission denied"
        raise InputError(f"cannot write into {parent}: {why}; give another {option}")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a temporary path that is renamed when the block
    ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Write a folder whole or not at all: yields a temporary folder that takes the place of `path`
    at the end.

    Raises:
        InputError: when `path` exists and `overwrite` is false, or when its parent cannot be
            written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; it was kept as it is. Give another --out, or --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise InputError(
            f"cannot write into {path.parent}: {error.strerror}; give another --out"
        ) from error
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        _replace_dir(temporary, path)
    except OSError as error:
        raise InputError(
            f"writing {path} failed: {error.strerror or error}; nothing was kept of it"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_dir(new: Path, path: Path) -> None:
    """Put `new` where `path` is; the old folder is removed only after the new one is in place."""
    old: Path | None = None
    if path.exists():
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
        os.replace(path, old / path.name)
    try:
        os.replace(new, path)
    except OSError:
        if old is not None:
            os.replace(old / path.name, path)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
