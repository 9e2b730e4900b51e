"""Checkpoints: one safetensors file, its description as JSON in the header; nothing in it is code.

The file appears whole or not at all, so a full disk or a kill leaves the one before. It names the
format, the form and the spaces it belongs to, and refuses others in one line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from surpass.errors import InputError, atomic
from surpass.forms import Spaces
from surpass.parts import from_json, to_json

__all__ = ["FORMAT", "describe_form", "form_from", "read_tensors", "spaces_from", "write_tensors"]

FORMAT = 1
_HEADER = "surpass"


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and plain values in one file, whole or not at all.

    Raises:
        InputError: when it cannot be written; what was there before stays as it was.
    """
    path = Path(path)
    held = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps({"format": FORMAT, **info}, sort_keys=True)
    payload = safetensors.torch.save(held, {_HEADER: text})
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        kept = "; the one before it was kept" if path.exists() else ""
        raise InputError(f"{path} could not be written: {error.strerror or error}{kept}") from error


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and plain values of a file that `write_tensors` wrote.

    Raises:
        InputError: when it is missing, damaged, not ours, or of another version of the format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, "pt") as file:
            info = json.loads((file.metadata() or {}).get(_HEADER, "null"))
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(info, dict):
        raise InputError(f"{path} was not written by surpass")
    if info.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {info.get('format')}, and this version reads format {FORMAT}; "
            "train again, or use the version that wrote it"
        )
    return tensors, info


def describe_form(form: Any, spaces: Spaces) -> dict[str, Any]:
    """What a file says about what its tensors belong to; the form is None where it holds a
    function that is not a registered part."""
    try:
        written = to_json(form)
    except InputError:
        written = None
    return {"form": written, "spaces": {**asdict(spaces), "extras": dict(spaces.extras)}}


def form_from(info: Mapping[str, Any], recipe: Any = None) -> Any:
    """The form that a file names, or `recipe` where it holds functions that cannot be stored.

    Raises:
        InputError: when the file names none and no recipe is given.
    """
    if info.get("form") is not None:
        return from_json(info["form"])
    if recipe is None:
        raise InputError(
            "this recipe holds a function that is not a registered part, so the file does not name "
            "it; hand the recipe in too"
        )
    return recipe


def spaces_from(info: Mapping[str, Any]) -> Spaces:
    """The spaces that a file names."""
    held = {_OLD_NAMES.get(name, name): value for name, value in info["spaces"].items()}
    return Spaces(**{**held, "low": tuple(held["low"]), "high": tuple(held["high"])})


_OLD_NAMES = {"act_dim": "action_dim", "actions": "n_actions"}
