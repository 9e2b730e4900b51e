"""Decisions as Parquet, Arrow, CSV or JSONL: whole or not at all, and read back by `open_log` as
they were."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
from torch import Tensor

from surpass.data.files import NAMES, ROLES_KEY
from surpass.data.records import Decisions
from surpass.errors import InputError, atomic, nearest

__all__ = ["to_table", "write_log", "write_rows"]

_SINGLE = ("reward", "propensity", "time", "cost", "group")


def to_table(log: Decisions) -> pa.Table:
    """One row per decision: the action by its name, `propensity_NAME` and `available_NAME` for
    every action, the context by the names of its columns. The schema's metadata say which column
    is what.

    Raises:
        InputError: when a context column has the name of another column.
    """
    about = log.about
    actions = about.actions or tuple(str(k) for k in range(log.n_actions))
    held: dict[str, pa.Array] = {"action": _named(log.action, actions)}
    roles: dict[str, Any] = {"action": "action", "actions": list(actions)}
    for name in _SINGLE:
        if (values := getattr(log, name)) is not None:
            held[name], roles[name] = _array(values), name
    for role, prefix in (("propensities", "propensity"), ("available", "available")):
        if (table := getattr(log, role)) is not None:
            columns = [f"{prefix}_{a}" for a in actions]
            held |= {c: _array(table[:, k]) for k, c in enumerate(columns)}
            roles[role] = columns
    if log.position is not None:
        names = about.names.get("position")
        held["position"] = _named(log.position, names) if names else _array(log.position)
        roles["position"] = "position"
    width = log.context.shape[1]
    context = about.names.get("context") or tuple(f"context_{j}" for j in range(width))
    if len(context) != width:
        raise InputError(
            f"the context has {width} columns, but {len(context)} names; name every column"
        )
    for j, column in enumerate(context):
        if column in held:
            raise InputError(
                f"the context has a column {column!r}, which another column is called; rename it"
            )
        held[column] = _array(log.context[:, j])
    roles["context"] = list(context)
    return pa.table(held).replace_schema_metadata({ROLES_KEY: json.dumps(roles)})


def _array(values: Tensor) -> pa.Array:
    return pa.array(np.ascontiguousarray(values.detach().cpu().numpy()))


def _named(numbers: Tensor, names: Sequence[str]) -> pa.Array:
    return pa.array(np.asarray(names, dtype=object)[numbers.cpu().numpy()], pa.string())


def write_log(log: Decisions | Iterable[Decisions], path: str | Path) -> Path:
    """Write a log, or its batches one after another, in the format that the name asks for.

    Args:
        log: decisions, or an iterable of them in constant memory.
        path: `.parquet`, `.arrow`, `.csv` or `.jsonl`.

    Raises:
        InputError: when the format is unknown, there is nothing to write, or the disk refuses.
    """
    batches = iter([log] if isinstance(log, Decisions) else log)
    return _write((to_table(batch) for batch in batches), Path(path))


def write_rows(
    rows: Sequence[Mapping[str, Any]], path: str | Path, schema: pa.Schema | None = None
) -> Path:
    """Write raw rows, such as the decisions of a service: a dict per decision with its context
    columns, `action`, `propensity`, `reward` and so on, in the format that the name asks for.

    Raises:
        InputError: as `write_log`; and when a column holds values of several types.
    """
    try:
        table = pa.Table.from_pylist([dict(r) for r in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{path}: a column holds values of several types: {error}") from error
    return _write(iter([table]), Path(path))


def _write(tables: Iterator[pa.Table], path: Path) -> Path:
    kind = NAMES.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path}: the format {path.suffix or 'without an ending'!r} cannot be written"
            f"{nearest(path.suffix, tuple(NAMES))}; end the name in .parquet, .arrow, .csv or "
            ".jsonl"
        )
    first = next(tables, None)
    if first is None or first.num_rows == 0:
        raise InputError(f"{path}: there are no rows to write; give at least one decision")
    every = chain([first], tables)
    try:
        with atomic(path) as temporary:
            if kind == "Parquet":
                with pq.ParquetWriter(temporary, first.schema) as parquet:
                    for table in every:
                        parquet.write_table(table)
            elif kind == "Arrow":
                with ipc.new_file(str(temporary), first.schema) as arrow:
                    for table in every:
                        arrow.write_table(table)
            elif kind == "CSV":
                with pacsv.CSVWriter(temporary, first.schema) as text:
                    for table in every:
                        text.write_table(table)
            else:
                with temporary.open("w", encoding="utf-8") as lines:
                    for table in every:
                        for row in table.to_pylist():
                            lines.write(json.dumps(row, default=str) + "\n")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}; nothing was kept of it"
        ) from error
    return path
