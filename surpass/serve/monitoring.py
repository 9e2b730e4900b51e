"""`surpass monitor`: reads a log or a stream in batches, and says when something changed, what, and
how sure that is.

    surpass.monitor("decisions/")                               # do contexts still look the same?
    surpass.monitor("tickets.jsonl", text="message")            # or texts?
    surpass.monitor("decisions/", "feamoe", group="gender")     # errors and fairness
    surpass.monitor("decisions/", "gate", policy="candidate/")  # may the candidate be promoted?
    surpass.monitor(occupancies, "goodhart-rl", anchor=proxy)   # when to stop optimizing
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from surpass.data import open_log
from surpass.data.files import open_parts
from surpass.data.records import Decisions
from surpass.errors import InputError, nearest
from surpass.forms import Monitor, Reading
from surpass.methods.ope.promotion import gate
from surpass.registry import build, recipe, systems

__all__ = ["Entry", "Watched", "monitor", "watching"]

TEXTS = ("text", "message", "prompt", "utterance", "query", "request", "question")
ANCHOR_SHARE = 0.3
LEAST = 100


@dataclass(frozen=True)
class Entry:
    """One batch: its number from 0, the rows it has read (`first` to `last`, counted from 1), the
    time it ends at where the log has one, and what the monitor says."""

    batch: int
    first: int
    last: int
    time: float | None
    reading: Reading


@dataclass(frozen=True)
class Watched:
    """What a monitor said of a log: the readings in order, and what they say in words."""

    watch: str
    log: str
    entries: tuple[Entry, ...]
    note: str = ""

    @property
    def alarms(self) -> tuple[Entry, ...]:
        """The batches that raised an alarm."""
        return tuple(e for e in self.entries if e.reading.alarm)

    def __str__(self) -> str:
        lines = [
            f"{self.watch} over {len(self.entries)} batches of {self.log}. {self.note}".strip()
        ]
        for e in self.alarms:
            lines.append(f"  {_when(e)}: {_sure(e.reading)}. {e.reading.why}".rstrip())
        if not self.alarms:
            close = max(self.entries, key=lambda e: _excess(e.reading), default=None)
            near = f" The closest: {_when(close)}, {_sure(close.reading)}." if close else ""
            lines.append(f"  No alarm.{near}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite becomes None."""
        return {
            "watch": self.watch,
            "log": self.log,
            "note": self.note,
            "alarms": [e.batch for e in self.alarms],
            "batches": [
                {
                    "batch": e.batch, "rows": [e.first, e.last], "time": e.time,
                    "statistic": _finite(e.reading.statistic),
                    "threshold": _finite(e.reading.threshold), "alarm": e.reading.alarm,
                    "since": e.reading.since, "why": e.reading.why,
                    **{k: v for k, v in e.reading.extras.items() if isinstance(v, int | float)},
                }
                for e in self.entries
            ],
        }  # fmt: skip

    def table(self) -> Table:
        """For the terminal: a line per batch."""
        out = Table(title=str(self).splitlines()[0], title_style="bold")
        for name in ("batch", "rows", "statistic", "threshold", "alarm", "why"):
            out.add_column(name)
        for e in self.entries:
            r = e.reading
            out.add_row(
                str(e.batch), f"{e.first}-{e.last}", f"{r.statistic:.3g}", f"{r.threshold:.3g}",
                "alarm" if r.alarm else "", r.why,
            )  # fmt: skip
        return out


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _excess(reading: Reading) -> float:
    return reading.statistic - reading.threshold if math.isfinite(reading.threshold) else -math.inf


def _when(e: Entry) -> str:
    at = (
        f", {datetime.fromtimestamp(e.time, UTC):%Y-%m-%d %H:%M}" if e.time and e.time > 1e8 else ""
    )
    since = f", since batch {e.reading.since}" if e.reading.since is not None else ""
    return f"batch {e.batch} (rows {e.first} to {e.last}{at}{since})"


def _sure(reading: Reading) -> str:
    return f"statistic {reading.statistic:.3g}, threshold {reading.threshold:.3g}"


# ------------------------------------------------------------------------------------------- watch


def monitor(
    data: Any,
    watch: str | Monitor = "auto",
    *,
    anchor: Any = None,
    policy: Any = None,
    every: int | None = None,
    text: str | None = None,
    columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> Watched:
    """Read a log or a stream to its end, batch by batch.

    Args:
        data: a log in any form that `surpass improve` reads, such as the folder of `surpass serve`;
            a file with a column of texts; texts; vectors [n, d]; `Decisions`; or an iterator of
            batches of these.
        watch: "text-drift" (texts, or contexts as vectors), "feamoe" (fairness and errors; rewards
            of 0 and 1, a group column of two values), "goodhart-rl" (a row per checkpoint), "gate"
            (with `policy`), a `Monitor`, or "auto": the gate with a policy, otherwise drift.
        anchor: data that were in order; by default the first 30 % of the log, which is then not
            watched itself. For "goodhart-rl" the stand-in's direction.
        policy: for the gate: the candidate, a folder or anything `surpass evaluate` takes.
        every: rows of a batch: 100 for drift, 500 for fairness, 1,000 for the gate by default.
        text: the column of texts. columns: which column is what, as in `surpass improve`.
        options: the monitor's own, such as `run_length=200` or `measure="odds"`.

    Raises:
        InputError: when the data do not fit the monitor.
    """
    *_, last = chain([None], watching(
        data, watch, anchor=anchor, policy=policy, every=every, text=text, columns=columns,
        **options,
    ))  # fmt: skip
    if last is None:
        raise InputError("there was no batch to watch; give more rows, or a smaller `every`")
    return last


def watching(
    data: Any, watch: str | Monitor = "auto", *, anchor: Any = None, policy: Any = None,
    every: int | None = None, text: str | None = None, columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Watched]:  # fmt: skip
    """The same as it happens: what was said so far, after every batch of a stream."""
    if every is not None and every < 1:
        raise InputError(f"--every is {every}; give the rows of a batch, 1 or more")
    name, form = _form(watch, policy, options)
    size = every or {"feamoe": 500, "gate": 1000, "goodhart-rl": 1}.get(name, LEAST)
    stream, log = _stream(data, name, size, text, columns or {})
    if form.anchor is None:
        raise InputError(f"{name} has no anchor to begin from")
    if name == "gate":
        held, note = _opened(policy), ""
    elif anchor is None:
        if name == "goodhart-rl":
            raise InputError("goodhart-rl needs anchor=, the stand-in's weights on the features")
        held, stream, note = _first(stream, data, size)
    else:
        held, note = _anchor(anchor, name, size, text, columns or {}), ""
    state, done, row = form.anchor(held), [], 0
    for k, batch in enumerate(stream):
        reading, state = form.watch(state, batch)  # type: ignore[call-arg]
        time = getattr(batch, "time", None)
        end = None if time is None else float(time.max())
        rows = 1 if name == "goodhart-rl" else len(batch)
        done.append(Entry(k, row + 1, row + rows, end, reading))
        row += rows
        yield Watched(name, log, tuple(done), note)


def _form(watch: str | Monitor, policy: Any, options: dict[str, Any]) -> tuple[str, Monitor]:
    if isinstance(watch, Monitor):
        return "monitor", watch
    if watch == "auto":
        watch = "gate" if policy is not None else "text-drift"
    if watch == "gate":
        if policy is None:
            raise InputError("the gate needs policy=, the candidate that asks to be promoted")
        has = tuple(inspect.signature(gate).parameters)
        if odd := [k for k in options if k not in has]:
            raise InputError(
                f"the gate has no {odd[0]!r}{nearest(odd[0], has)}; it has {', '.join(has)}"
            )
        return watch, gate(**_typed(gate, options))
    known = ["gate", *(k for k, s in systems().items() if s.form == "Monitor")]
    if watch not in known:
        raise InputError(
            f"there is no monitor {watch!r}{nearest(watch, known)}; there are {', '.join(known)}"
        )
    return watch, build(watch, **_typed(recipe(watch), options))


def _typed(make: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options, none of them a word where a number stands by default."""
    known = inspect.signature(make).parameters
    for name, value in options.items():
        default = known[name].default if name in known else None
        if isinstance(value, str) and isinstance(default, int | float):
            raise InputError(f"--set {name}={value}: a number is expected, as in {default!r}")
    return options


def _opened(policy: Any) -> Any:
    if isinstance(policy, str | Path):
        from surpass.policies.handover import load

        return load(policy)
    return policy


# ------------------------------------------------------------------------------------------ streams


def _stream(
    data: Any, name: str, size: int, text: str | None, columns: Mapping[str, Any]
) -> tuple[Iterator[Any], str]:
    """Batches of texts, vectors or decisions, and what the data are called."""
    if name == "goodhart-rl":
        return iter(_rows_of_features(data)), _called(data)
    if isinstance(data, Iterator):
        return data, "a stream"
    if isinstance(data, Tensor) or _texts(data):
        return _cut(data, size), _called(data)
    if isinstance(data, str | Path) and Path(data).exists() and name != "gate":
        column = _text_column(data, text)
        if column is not None:
            return _read_texts(data, column, size), str(data)
    log = open_log(data, **dict(columns))
    held = log.read()
    if not isinstance(held, Decisions):
        raise InputError(
            "a log of episodes has no decisions to watch; give its observations [n, d]"
        )
    if held.time is not None:
        held = held[held.time.argsort(stable=True)]
    batches = _cut(held, size)
    return (b.context for b in batches) if name == "text-drift" else batches, log.name


def _texts(data: Any) -> bool:
    return isinstance(data, list | tuple) and bool(data) and isinstance(data[0], str)


def _called(data: Any) -> str:
    return "vectors" if isinstance(data, Tensor) else "texts" if _texts(data) else str(data)


def _cut(rows: Any, size: int) -> Iterator[Any]:
    """Whole batches; a rest smaller than half a batch is not judged."""
    for start in range(0, len(rows), size):
        piece = rows[start : start + size]
        if 2 * len(piece) >= size:
            yield piece


def _text_column(path: str | Path, text: str | None) -> str | None:
    """The column of texts: as named, else one with a usual name in a table without actions."""
    names = open_parts(path)[0].schema.names
    if text is not None:
        if text not in names:
            raise InputError(f"{path} has no column {text!r}{nearest(text, names)}")
        return text
    if any(n.lower() in ("action", "propensity") for n in names):
        return None
    return next((n for n in names if n.lower() in TEXTS), None)


def _read_texts(path: str | Path, column: str, size: int) -> Iterator[list[str]]:
    values = (
        v
        for part in open_parts(path)
        for batch in part.batches([column], 8192)
        for v in batch.column(0).to_pylist()
    )
    while piece := [str(v) for v in islice(values, size)]:
        if 2 * len(piece) >= size:
            yield piece


def _rows_of_features(data: Any) -> Iterable[Tensor]:
    if isinstance(data, Tensor | list | tuple):
        return [torch.as_tensor(d, dtype=torch.float64) for d in data]
    if isinstance(data, Iterator):
        return (torch.as_tensor(d, dtype=torch.float64) for d in data)
    rows = []
    for part in open_parts(data):
        for batch in part.batches(list(part.schema.names), 8192):
            rows += [list(r.values()) for r in batch.to_pylist()]
    try:
        return [torch.tensor([float(v) for v in row], dtype=torch.float64) for row in rows]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{data}: every column must be a number, a feature's expectation"
        ) from error


def _first(stream: Iterator[Any], data: Any, size: int) -> tuple[Any, Iterator[Any], str]:
    """The anchor at the head of the stream, and the rest."""
    if isinstance(data, Iterator):
        raise InputError("a stream needs anchor=, data that were in order")
    batches = list(stream)
    n = max(math.ceil(ANCHOR_SHARE * len(batches)), -(-LEAST // max(size, 1)))
    if len(batches) <= n:
        rows = sum(len(b) for b in batches)
        raise InputError(
            f"{rows} rows are too few for an anchor and batches of {size}; "
            "give anchor=, or a smaller every="
        )
    note = f"The first {sum(len(b) for b in batches[:n]):,} rows are the anchor."
    return _joined(batches[:n]), iter(batches[n:]), note


def _joined(batches: list[Any]) -> Any:
    if isinstance(batches[0], list | tuple):
        return [m for b in batches for m in b]
    about = getattr(batches[0], "about", None)
    whole: Any = torch.cat(batches)
    return whole if about is None else whole.described(about)


def _anchor(anchor: Any, name: str, size: int, text: str | None, columns: Mapping[str, Any]) -> Any:
    if name == "goodhart-rl":
        rows = list(_rows_of_features(anchor)) if isinstance(anchor, str | Path) else None
        return rows[0] if rows else torch.as_tensor(anchor, dtype=torch.float64)
    if isinstance(anchor, Decisions):
        return anchor.context if name == "text-drift" else anchor
    return _joined(list(_stream(anchor, name, size, text, columns)[0]))
