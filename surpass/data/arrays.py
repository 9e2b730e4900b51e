"""Columns of a table as numpy arrays: numbers, words, seconds and lists, or the first row that is
none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from surpass.data.files import at, kind_of
from surpass.errors import InputError

__all__ = [
    "as_table",
    "first_true",
    "is_number",
    "number_columns",
    "numbers",
    "plain",
    "seconds",
    "words",
]

pc: Any = pyarrow.compute  # its functions are made when it is imported; checkers see none
Column = pa.Array | pa.ChunkedArray


def plain(column: Column) -> pa.Array:
    """One array without dictionary encoding."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    return array


def first_true(mask: Any) -> int | None:
    """The index of the first true entry, or None."""
    where = int(mask.argmax()) if mask.size else 0
    return where if mask.size and mask[where] else None


def numbers(column: Column, file: str = "", name: str = "", start: int = 0) -> np.ndarray:
    """The column as float64 [N], missing values as NaN; `start` is the number of rows before it.

    Raises:
        InputError: at the first row that is not a number.
    """
    array = plain(column)
    kind = kind_of(array.type)
    if kind == "text":
        array = _parsed(array, file, name, start)
    elif kind == "nothing":
        return np.full(len(array), np.nan)
    elif kind != "number":
        raise at(file, name, None, f"numbers are expected, it holds {kind}", "name another column")
    values = pc.cast(array, pa.float64(), safe=False)
    return values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def _parsed(array: pa.Array, file: str, name: str, start: int) -> pa.Array:
    try:
        return pc.cast(pc.utf8_trim_whitespace(array), pa.float64())
    except pa.ArrowInvalid:
        for i, value in enumerate(array.to_pylist()):
            if value is not None and not is_number(value):
                raise at(
                    file, name, start + i + 1, f"{value!r} is not a number",
                    "write a number, or leave it empty if it is missing",
                ) from None  # fmt: skip
        return pa.array([None if v is None else float(v) for v in array.to_pylist()], pa.float64())


def is_number(value: str) -> bool:
    """Whether a word reads as a number."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def words(column: Column) -> pa.Array:
    """The column as strings; whole numbers without a decimal point, so that `2.0` and `2` are one
    word."""
    array = plain(column)
    if pa.types.is_boolean(array.type):
        return pc.if_else(array, "true", "false")
    if pa.types.is_floating(array.type):
        array = _whole(array)
    return array if pa.types.is_string(array.type) else pc.cast(array, pa.string())


def _whole(array: pa.Array) -> pa.Array:
    try:
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid:
        return array


def seconds(column: Column, file: str = "", name: str = "", start: int = 0) -> np.ndarray:
    """The column as seconds, float64 [N]: dates and times since 1970 (UTC), numbers as they are.

    Raises:
        InputError: at the first row that is neither a number nor an ISO 8601 time.
    """
    array = plain(column)
    kind = kind_of(array.type)
    if kind == "text":
        try:
            array = pc.cast(array, pa.timestamp("us", tz="UTC"))
        except pa.ArrowInvalid:
            try:
                array = pc.cast(array, pa.timestamp("us"))
            except pa.ArrowInvalid:
                return _times_one_by_one(array, file, name, start)
        kind = "time"
    if kind != "time":
        return numbers(array, file, name, start)
    if pa.types.is_date(array.type):
        array = pc.cast(array, pa.timestamp("s"))
    if not pa.types.is_timestamp(array.type):
        raise at(file, name, None, f"holds {array.type}, not points in time", "name another column")
    ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[array.type.unit]
    counts = pc.cast(pc.cast(array, pa.int64()), pa.float64(), safe=False)
    return counts.to_numpy(zero_copy_only=False) / ticks


def _times_one_by_one(array: pa.Array, file: str, name: str, start: int) -> np.ndarray:
    from datetime import UTC, datetime

    out = np.full(len(array), np.nan)
    for i, value in enumerate(array.to_pylist()):
        if value is None:
            continue
        try:
            out[i] = float(value)
        except ValueError:
            try:
                moment = datetime.fromisoformat(value.strip())
            except ValueError:
                raise at(
                    file, name, start + i + 1, f"{value!r} is not a time",
                    "write it as 2026-01-31T12:00:00, or as seconds",
                ) from None  # fmt: skip
            out[i] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return out


def number_columns(
    column: Column, width: int | None, file: str = "", name: str = "", start: int = 0
) -> np.ndarray:
    """A column of lists of one length as float64 [N, width].

    Raises:
        InputError: at the first row whose list is missing or of another length.
    """
    array = plain(column)
    n = len(array)
    if n == 0:
        return np.zeros((0, width or 0))
    lengths = pc.list_value_length(array).fill_null(-1).to_numpy(zero_copy_only=False)
    if width is None:
        width = int(lengths[0])
    bad = first_true(lengths != width)
    if bad is not None:
        has = "is missing" if lengths[bad] < 0 else f"has {lengths[bad]} entries"
        raise at(
            file, name, start + bad + 1, f"the list {has}, {width} are expected",
            "write a number for each action",
        )  # fmt: skip
    return numbers(array.flatten(), file, name).reshape(n, width)


def as_table(data: Any) -> pa.Table:
    """A pyarrow Table from a table, a record batch, a pandas or polars DataFrame, or a dict of
    arrays.

    Raises:
        InputError: when it is none of these, or when the columns are not equally long.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, Mapping):
        columns = {str(k): _column(v) for k, v in data.items()}
        lengths = {len(v) for v in columns.values()}
        if len(lengths) > 1:
            sizes = ", ".join(f"{k} {len(v)}" for k, v in columns.items())
            raise InputError(f"the columns are not equally long: {sizes}; give one value per row")
        return pa.table(columns)
    if hasattr(data, "to_arrow"):
        table = data.to_arrow()
        return table if isinstance(table, pa.Table) else pa.table(table)
    if type(data).__module__.startswith("pandas"):
        return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
    raise InputError(
        f"a {type(data).__name__} is not a table; give a pandas or polars DataFrame, a pyarrow "
        "Table, or a dict of columns"
    )


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.array(values, from_pandas=True)
