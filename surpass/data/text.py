"""Which row of a text file is broken: found by reading it again slowly, once something is known to
be wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["broken_csv_row", "broken_json_row", "read_lines"]

Broken = tuple[int, str | None, str, str]  # data row, column, what is wrong, how to mend it


def read_lines(path: Path) -> IO[bytes]:
    """The bytes of a text file, unpacked if it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def broken_csv_row(path: Path, delimiter: str, quotes_only: bool = False) -> Broken | None:
    """The first data row whose quote is never closed or that has too many or too few values.

    With `quotes_only`, the file is read slowly only when its number of quotes is odd, since a
    parser takes an open quote
    at the end of the file for a very long value.
    """
    if quotes_only and not _odd_quotes(path):
        return None
    with read_lines(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        header = next(csv.reader([text.readline()], delimiter=delimiter), [])
        row, opened, quoted = 0, 0, False
        pending: list[str] = []
        for line in text:
            if not quoted:
                if not line.strip():
                    continue
                row, opened, pending = row + 1, row + 1, []
            pending.append(line)
            quoted = _ends_quoted(line, quoted, delimiter)
            if quoted or quotes_only:
                continue
            values = next(csv.reader(["".join(pending)], delimiter=delimiter), [])
            if len(values) != len(header):
                spans = "the quote of an earlier value is broken" if len(pending) > 1 else ""
                return row, None, f"{len(values)} values, but the header has {len(header)}", (
                    spans or "mend the line, or quote values that hold the separator"
                )  # fmt: skip
        if quoted:
            column = _open_column(pending[0], header, delimiter)
            return opened, column, "a quote is opened and never closed", "close or remove it"
    return None


def _odd_quotes(path: Path) -> bool:
    count = 0
    with read_lines(path) as file:
        while block := file.read(8 << 20):
            count += block.count(b'"')
    return count % 2 == 1


def _ends_quoted(line: str, quoted: bool, delimiter: str) -> bool:
    """Whether a quote is open after this line; a quote opens only at the start of a value."""
    start, i = True, 0
    while i < len(line):
        c = line[i]
        if quoted:
            if c == '"':
                if line[i + 1 : i + 2] == '"':
                    i += 1
                else:
                    quoted = False
        elif c == '"' and start:
            quoted = True
        start = not quoted and c == delimiter
        i += 1
    return quoted


def _open_column(line: str, header: list[str], delimiter: str) -> str | None:
    quoted, start, column, where = False, True, 0, None
    for c in line:
        if c == '"' and (quoted or start):
            quoted = not quoted
            where = column if quoted else where
        elif c == delimiter and not quoted:
            column += 1
        start = c == delimiter and not quoted
    return header[where] if where is not None and where < len(header) else None


def broken_json_row(path: Path) -> Broken | None:
    """The first line that is no JSON object, or whose value is of another kind than in the rows
    before."""
    kinds: dict[str, tuple[str, int]] = {}
    row = 0
    with read_lines(path) as file:
        for line in file:
            if not line.strip():
                continue
            row += 1
            try:
                values = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                what = getattr(error, "msg", "not UTF-8")
                return row, None, f"not valid JSON ({what})", "write one JSON object per line"
            if not isinstance(values, dict):
                return row, None, "not a JSON object", "write one JSON object per line"
            for column, value in values.items():
                kind = _kind(value)
                if kind is None:
                    continue
                seen, before = kinds.setdefault(column, (kind, row))
                if seen != kind:
                    return row, column, f"{_short(value)} is {kind}, but {seen} in row {before}", (
                        "write one type per column"
                    )  # fmt: skip
    return None


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "a truth value"
    names = {int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 30 else text[:27] + "..."
