"""What a file really is, and how its rows are read: Parquet, CSV, JSONL and Arrow, block by
block.

A `Part` is one file (or one table in memory) with a known schema. It streams record batches, so a
log may be larger than memory. What is broken is located exactly: file, column and data row (the
first row after a header is row 1).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NoReturn

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.json as pajson
import pyarrow.parquet as pq

from surpass.data.text import (
    broken_csv_row,
    broken_json_row,
    not_utf8_row,
    read_lines,
    suspicious_quotes,
)
from surpass.errors import InputError

__all__ = [
    "BLOCK",
    "NAMES",
    "ROLES_KEY",
    "Part",
    "at",
    "kind_of",
    "open_part",
    "open_parts",
    "sniff",
    "stored_roles",
]

ROLES_KEY = b"surpass.roles"
BLOCK = 8 << 20  # bytes of text that are parsed at a time
NAMES = {
    ".parquet": "Parquet", ".pq": "Parquet", ".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSONL",
    ".ndjson": "JSONL", ".json": "JSONL", ".arrow": "Arrow", ".feather": "Arrow", ".ipc": "Arrow",
    ".arrows": "Arrow",
}  # fmt: skip
_ENDINGS = {"Parquet": ".parquet", "CSV": ".csv", "JSONL": ".jsonl", "Arrow": ".arrow"}
_MAGIC = {
    b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xff\xff\xff\xff": "Arrow", b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip or Excel file", b"\x89HDF": "an HDF5 file", b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle", b"%PDF": "a PDF", b"SQLite": "an SQLite database",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive", b"ORC": "an ORC file", b"Obj\x01": "an Avro file",
}  # fmt: skip
_HINTS = "Parquet, CSV, JSONL or Arrow are read"


def at(file: str, column: str | None, row: int | None, what: str, mend: str = "") -> InputError:
    """The one line that names file, column and row (1-based data row), and how to mend it."""
    where = [f"column {column!r}"] if column is not None else []
    where += [f"row {row}"] if row is not None else []
    place = f"{file}: {', '.join(where)}: " if where else f"{file}: "
    return InputError(place + what + (f"; {mend}" if mend else ""))


def kind_of(kind: pa.DataType) -> str:
    """The family of a column's type, by which parts of a folder are compared: number, text, time,
    list, nothing."""
    types = pa.types
    if types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_boolean(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_temporal(kind):
        return "time"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list"
    return "nothing" if types.is_null(kind) else str(kind)


def stored_roles(schema: pa.Schema) -> dict[str, Any]:
    """The columns' roles that `surpass.data.writers` left in a Parquet or Arrow file; empty for
    files of others."""
    text = (schema.metadata or {}).get(ROLES_KEY)
    try:
        roles = json.loads(text) if text else {}
    except ValueError:
        return {}
    known = set(schema.names)
    return {
        role: held
        for role, held in (roles.items() if isinstance(roles, dict) else ())
        if role == "actions" or set([held] if isinstance(held, str) else held) <= known
    }


@dataclass(frozen=True)
class Part:
    """One file of a log, or one table in memory.

    Attributes:
        name: what errors call it.
        format: Parquet, CSV, JSONL, Arrow, or memory.
        schema: the columns and their types.
        rows: how many data rows it has.
        path: where it is, unless in memory.
        table: the rows themselves, when in memory.
        delimiter: what separates the values of a CSV file.
    """

    name: str
    format: str
    schema: pa.Schema
    rows: int
    path: Path | None = None
    table: pa.Table | None = None
    delimiter: str = ","

    def batches(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The rows in order, at most `size` at a time, of these columns only."""
        try:
            for batch in self._blocks(columns, size):
                for start in range(0, batch.num_rows, size):
                    yield batch.slice(start, size)
        except (pa.ArrowException, OSError) as error:
            raise at(
                self.name, None, None, f"reading stopped, the {self.format} file is damaged "
                f"({_first_line(error)})", "write the file again",
            ) from error  # fmt: skip

    def _blocks(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        if self.table is not None:
            yield from self.table.select(columns).to_batches(max_chunksize=size)
        elif self.format == "Parquet":
            # Without pre-buffering, a row group is decoded page by page and never held whole.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file:
                yield from file.iter_batches(batch_size=size, columns=columns, use_threads=False)
        elif self.format == "Arrow":
            with _arrow(self.path) as batches:
                for batch in batches:
                    yield batch.select(columns)
        elif self.format == "CSV":
            yield from _csv(self, columns)
        else:
            yield from (batch.select(columns) for _, batch in _jsonl(self.path, self.schema))


def sniff(path: Path) -> str:
    """What the content of a file is: Parquet, Arrow, CSV, JSONL, or another thing in words.

    Raises:
        InputError: when the file is empty or cannot be read.
    """
    head = _head(path)
    if not head.strip():
        raise at(str(path), None, None, "the file is empty", "give a log with a row per decision")
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if b"\x00" in head:
        return "a binary file of unknown kind"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return "JSONL"
    if text.startswith(b"["):
        return "a JSON array"
    return "CSV"


def open_parts(path: str | Path) -> list[Part]:
    """The file, or all files of a folder, in order of their names; their schemas agree.

    Raises:
        InputError: when nothing can be read, or when the parts of a folder do not fit together.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a file or a folder of logs{_near(path)}")
    if path.is_file():
        return [open_part(path)]
    inside = sorted(p for p in path.rglob("*") if p.is_file() and _visible(p.relative_to(path)))
    files = [p for p in inside if _ending(p) in NAMES]
    if not files:
        has = f"it has {inside[0].name}" if inside else "it is empty"
        raise at(f"{path}/", None, None, f"a folder without logs ({has})", _HINTS)
    return _agreeing([open_part(p, name=str(p)) for p in files])


def open_part(path: Path, name: str | None = None) -> Part:
    """One file, checked to be what its name says and whole.

    Raises:
        InputError: when it is empty, truncated, broken, or of another kind than its extension
        says.
    """
    name = name or str(path)
    try:
        found = sniff(path)
    except OSError as error:
        raise at(name, None, None, f"cannot be read: {error.strerror}", "check the path") from error
    ending = _ending(path)
    said = NAMES.get(ending)
    if found == "a JSON array":
        raise at(name, None, None, "one JSON array, not JSONL", "write one JSON object per line")
    if found not in _ENDINGS:
        raise at(name, None, None, f"is {found}", _HINTS)
    if said is not None and said != found:
        good = path.name.removesuffix(ending) + _ENDINGS[found]
        raise at(
            name, None, None, f"the name says {said} but the content is {found}",
            f"rename it, as in {good}" if _whole(path, found) else f"write it again as {said}",
        )  # fmt: skip
    try:
        part = {
            "Parquet": _open_parquet, "Arrow": _open_arrow, "CSV": _open_csv, "JSONL": _open_jsonl,
        }[found](path, name)  # fmt: skip
    except UnicodeDecodeError as error:
        raise at(name, None, None, "the text is not UTF-8", "save it as UTF-8") from error
    twice = [c for c in part.schema.names if part.schema.names.count(c) > 1]
    if twice:
        raise at(name, twice[0], None, "two columns have this name", "rename one of them")
    if part.rows == 0:
        raise at(
            name, None, None, "the file is empty: it has no rows",
            "give a log with a row per decision",
        )  # fmt: skip
    return part


# ----------------------------------------------------------------------------------------------
# folders


def _agreeing(parts: list[Part]) -> list[Part]:
    """The parts with one schema, or the error that names the file and the column that differ."""
    first = parts[0]
    merged: dict[str, pa.DataType] = {f.name: f.type for f in first.schema}
    for part in parts[1:]:
        if part.format != first.format:
            raise at(
                part.name, None, None, f"is {part.format} while {first.name} is {first.format}",
                "keep files of one kind in a folder",
            )  # fmt: skip
        for column in [c for c in merged if c not in part.schema.names]:
            raise at(
                part.name, column, None, f"is missing, but {first.name} has it",
                "write all parts with the same columns",
            )  # fmt: skip
        for column in part.schema.names:
            if column not in merged:
                raise at(
                    part.name, column, None, f"is in this file but not in {first.name}",
                    "write all parts with the same columns",
                )  # fmt: skip
            merged[column] = _common(part, first, column, merged[column])
    schema = pa.schema(list(merged.items()))
    return [_cast(part, schema) for part in parts]


def _common(part: Part, first: Part, column: str, old: pa.DataType) -> pa.DataType:
    new = part.schema.field(column).type
    kinds = kind_of(old), kind_of(new)
    if new == old or kinds[1] == "nothing":
        return old
    if kinds[0] == "nothing":
        return new
    if kinds[0] != kinds[1]:
        raise at(
            part.name, column, None, f"is {kinds[1]}, but {kinds[0]} in {first.name}",
            "write all parts with the same types",
        )  # fmt: skip
    if kinds[0] == "number":
        whole = all(pa.types.is_integer(t) or pa.types.is_boolean(t) for t in (old, new))
        return pa.int64() if whole else pa.float64()
    return pa.string() if kinds[0] == "text" else old


def _cast(part: Part, schema: pa.Schema) -> Part:
    ordered = pa.schema([schema.field(c) for c in part.schema.names])
    return replace(part, schema=ordered) if part.format in ("CSV", "JSONL") else part


def _visible(path: Path) -> bool:
    return not any(piece.startswith((".", "_")) for piece in path.parts)


def _ending(path: Path) -> str:
    endings = [s.lower() for s in path.suffixes]
    if endings and endings[-1] == ".gz":
        return "".join(endings[-2:]) if len(endings) < 2 else endings[-2]
    return endings[-1] if endings else ""


def _near(path: Path) -> str:
    from surpass.errors import nearest

    try:
        return nearest(path.name, [p.name for p in path.parent.iterdir()])
    except OSError:
        return ""


# ----------------------------------------------------------------------------------------------
# Parquet, Arrow


def _open_parquet(path: Path, name: str) -> Part:
    if not _whole(path, "Parquet"):
        raise at(
            name, None, None, "the Parquet file is truncated: its end is missing",
            "copy or write it again",
        )  # fmt: skip
    try:
        with pq.ParquetFile(path) as file:
            return Part(name, "Parquet", file.schema_arrow, file.metadata.num_rows, path)
    except (pa.ArrowException, OSError) as error:
        raise at(
            name, None, None, f"the Parquet file is damaged ({_first_line(error)})",
            "copy or write it again",
        ) from error  # fmt: skip


def _open_arrow(path: Path, name: str) -> Part:
    try:
        with _arrow(path) as batches:
            return Part(name, "Arrow", batches.schema, sum(b.num_rows for b in batches), path)
    except (pa.ArrowException, OSError) as error:
        raise at(
            name, None, None, f"the Arrow file is truncated or damaged ({_first_line(error)})",
            "copy or write it again",
        ) from error  # fmt: skip


class _arrow:
    """Record batches of an Arrow file or stream, memory mapped."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> _arrow:
        self.source = pa.memory_map(str(self.path))
        start = self.source.read(6)
        self.source.seek(0)
        self.reader: Any = (
            ipc.open_file(self.source) if start == b"ARROW1" else ipc.open_stream(self.source)
        )
        self.schema: pa.Schema = self.reader.schema
        return self

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if isinstance(self.reader, ipc.RecordBatchFileReader):
            return (self.reader.get_batch(i) for i in range(self.reader.num_record_batches))
        return iter(self.reader)

    def __exit__(self, *_: object) -> None:
        self.source.close()


def _whole(path: Path, found: str) -> bool:
    if found != "Parquet":
        return True
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 4))
        return size >= 12 and file.read(4) == b"PAR1"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as file:
                return file.read(4096)
        except (OSError, EOFError) as error:
            raise at(str(path), None, None, "the gzip file is damaged", "write it again") from error
    return head


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


# ---------------------------------------------------------------------------------------------- CSV


def _open_csv(path: Path, name: str) -> Part:
    """Reads the whole file once: types are those that fit every row, and what is broken is found
    here."""
    with read_lines(path) as file:
        header = file.readline().decode("utf-8-sig")
    delimiter = max(",;\t|", key=header.count)
    part = Part(name, "CSV", pa.schema([]), 0, path, delimiter=delimiter)
    known: dict[str, pa.DataType] = {}
    while True:
        try:
            reader = _csv_reader(part, known)
            schema, rows, empty = reader.schema, 0, set(reader.schema.names)
            known = {f.name: known.get(f.name, _settled(f.type)) for f in schema}
            if any(known[f.name] != f.type for f in schema):
                continue
            for batch in reader:
                rows += batch.num_rows
                empty -= {
                    c for c in empty if batch.schema.names.count(c) == 1
                    and batch[c].null_count < batch.num_rows
                }  # fmt: skip
            break
        except pa.ArrowInvalid as error:
            column = _refused(error, known)
            if column is None:
                _complain_csv(path, name, delimiter, error)
            known[column] = (
                pa.float64() if known[column] in (pa.int64(), pa.bool_()) else pa.string()
            )
    for column in schema:
        if pa.types.is_binary(column.type):
            row = not_utf8_row(path)
            raise at(name, column.name, row, "the text is not UTF-8", "save the file as UTF-8")
    if suspicious_quotes(path, rows) and (
        broken := broken_csv_row(path, delimiter, quotes_only=True)
    ):
        raise at(name, broken[1], broken[0], broken[2], broken[3])
    return replace(part, schema=schema, rows=rows)


def _settled(kind: pa.DataType) -> pa.DataType:
    """A type that the next block may hold too: columns without a value yet are text until shown
    otherwise."""
    return pa.string() if pa.types.is_null(kind) else kind


def _csv_reader(part: Part, known: dict[str, pa.DataType]) -> pacsv.CSVStreamingReader:
    return pacsv.open_csv(
        pa.input_stream(str(part.path), compression="detect"),
        read_options=pacsv.ReadOptions(block_size=BLOCK, use_threads=False),
        parse_options=pacsv.ParseOptions(delimiter=part.delimiter, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(strings_can_be_null=True, column_types=known),
    )


def _csv(part: Part, columns: list[str]) -> Iterator[pa.RecordBatch]:
    known = {f.name: f.type for f in part.schema}
    for batch in _csv_reader(part, known):
        yield batch.select(columns)


def _refused(error: pa.ArrowInvalid, known: dict[str, pa.DataType]) -> str | None:
    """The column whose type a later block did not fit, if that is what the error says."""
    text = str(error)
    if not known or "conversion error" not in text or "CSV column #" not in text:
        return None
    number = int(text.split("CSV column #")[1].split(":")[0])
    column = list(known)[number]
    return None if known[column] == pa.string() else column


def _complain_csv(path: Path, name: str, delimiter: str, error: Exception) -> NoReturn:
    if "Empty CSV" in str(error):
        raise at(name, None, None, "the file is empty", "give a log with a row per decision")
    found = broken_csv_row(path, delimiter)
    if found is None:
        raise at(
            name, None, None, f"the CSV cannot be parsed ({_first_line(error)})", "write it again"
        ) from error
    raise at(name, found[1], found[0], found[2], found[3]) from error


# ----------------------------------------------------------------------------------------------
# JSONL


def _open_jsonl(path: Path, name: str) -> Part:
    schema, rows = None, 0
    try:
        for count, batch in _jsonl(path, None):
            rows += count
            schema = (
                batch.schema
                if schema is None
                else pa.unify_schemas([schema, batch.schema], promote_options="permissive")
            )
    except pa.ArrowException as error:
        found = broken_json_row(path)
        if found is None:
            raise at(
                name, None, None, f"the JSONL cannot be parsed ({_first_line(error)})",
                "write one flat JSON object per line",
            ) from error  # fmt: skip
        raise at(name, found[1], found[0], found[2], found[3]) from error
    assert schema is not None
    return Part(name, "JSONL", schema, rows, path)


def _jsonl(path: Path | None, schema: pa.Schema | None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Blocks of whole lines, each parsed with one schema (columns that a block lacks are missing
    values)."""
    assert path is not None
    options = pajson.ParseOptions(explicit_schema=schema)
    with read_lines(path) as file:
        while block := _whole_lines(file):
            if not block.strip():
                continue
            table = pajson.read_json(
                pa.BufferReader(block),
                parse_options=options,
                read_options=pajson.ReadOptions(block_size=len(block) + 1, use_threads=False),
            )
            for batch in table.combine_chunks().to_batches():
                yield batch.num_rows, batch


def _whole_lines(file: IO[bytes]) -> bytes:
    block = file.read(BLOCK)
    return block + file.readline() if block and not block.endswith(b"\n") else block
