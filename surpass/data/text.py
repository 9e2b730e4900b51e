"""Which row of a text file is broken: found by reading it again slowly, once something is known
to be wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["broken_csv_row", "broken_json_row", "not_utf8_row", "read_lines", "suspicious_quotes"]

Broken = tuple[int, str | None, str, str]  # data row, column, what is wrong, how to mend it


def read_lines(path: Path) -> IO[bytes]:
    """The bytes of a text file, unpacked if it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def suspicious_quotes(path: Path, rows: int) -> bool:
    """Whether a CSV file of so many parsed rows may hold a broken quote that the parser took for
    a long value: its quotes are odd in number, or it has quotes and more lines than rows."""
    quotes, lines = 0, 0
    with read_lines(path) as file:
        while block := file.read(8 << 20):
            quotes += block.count(b'"')
            lines += block.count(b"\n")
    return quotes % 2 == 1 or (quotes > 0 and lines > rows + 1)


def broken_csv_row(path: Path, delimiter: str, quotes_only: bool = False) -> Broken | None:
    """The first data row whose quote is not closed, or (unless `quotes_only`) with too many or
    too few values."""
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
            quoted, clean = _ends_quoted(line, quoted, delimiter)
            if not clean and len(pending) > 1:
                quoted = True
                break
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
            return opened, column, "a quote is opened and not closed", "close or remove it"
    return None


def _ends_quoted(line: str, quoted: bool, delimiter: str) -> tuple[bool, bool]:
    """Whether a quote is open after this line, and whether every closed quote ended its value.

    A quote opens only at the start of a value.
    """
    if '"' not in line:
        return quoted, True
    start, clean, i = True, True, 0
    while i < len(line):
        c = line[i]
        if quoted:
            if c == '"':
                if line[i + 1 : i + 2] == '"':
                    i += 1
                else:
                    quoted = False
                    clean = clean and line[i + 1 : i + 2] in ("", "\r", "\n", delimiter)
        elif c == '"' and start:
            quoted = True
        start = not quoted and c == delimiter
        i += 1
    return quoted, clean


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


def not_utf8_row(path: Path) -> int | None:
    """The first data row of a CSV file that is not UTF-8; 0 is the header."""
    with read_lines(path) as file:
        for row, line in enumerate(file):
            try:
                line.decode()
            except UnicodeDecodeError:
                return row
    return None


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
