"""The log that a decision service writes: every decision with its exact propensities, joined with
its reward when that comes, as Parquet parts that `surpass improve` reads.

A decision or reward is first appended to a journal (`.journal.jsonl`, one line each) and only then
acknowledged, so that a crash loses nothing that was answered; a line that a crash cut short is
dropped. Parts are written to a temporary name and renamed, then the journal is rewritten without
their rows; if a crash comes between the two, the rows of the last part are recognized by their id.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from surpass.data.files import ROLES_KEY
from surpass.data.writers import write_rows
from surpass.errors import InputError, atomic

__all__ = ["DecisionLog", "Unknown", "as_arrow", "log_schema"]

JOURNAL, LOCK = ".journal.jsonl", ".lock"


class Unknown(InputError):
    """A reward for a decision that is not waiting for one."""


def log_schema(
    context: Mapping[str, pa.DataType], actions: Sequence[str], policy: str = ""
) -> pa.Schema:
    """The columns of a part, with the metadata that says which is what.

    Raises:
        InputError: when a context column has the name of one of the log's own.
    """
    one, many = pa.float64(), [f"propensity_{a}" for a in actions]
    offered = [f"available_{a}" for a in actions]
    own: dict[str, pa.DataType] = {
        "request_id": pa.string(), "decided_at": one, "action": pa.string(), "reward": one,
        "propensity": one, **dict.fromkeys(many, one), **dict.fromkeys(offered, pa.bool_()),
    }  # fmt: skip
    twice = [c for c in context if c in own]
    if twice:
        raise InputError(f"the context has a column {twice[0]!r}, which the log needs for itself; "
                         "rename it, and learn the policy again")  # fmt: skip
    roles = {
        "row_id": "request_id", "time": "decided_at", "action": "action", "reward": "reward",
        "propensity": "propensity", "propensities": many, "available": offered,
        "actions": list(actions), "context": list(context),
    }  # fmt: skip
    notes = {ROLES_KEY: json.dumps(roles), b"surpass.policy": policy}
    return pa.schema({**own, **context}, metadata=notes)


def as_arrow(value: Any, kind: pa.DataType) -> Any:
    """A value of the journal as Arrow takes it: times are seconds since 1970 in JSON."""
    if value is not None and pa.types.is_timestamp(kind):
        return datetime.fromtimestamp(value, UTC)
    return value


class DecisionLog:
    """A folder of decisions, open for one service at a time.

    Rewards may come in any order. A decision without a reward stays out of the parts; where no
    news means something (no click), give `default_reward`, which is taken after `patience`
    seconds. Leaving it out and reporting only clicks would make a log in which everybody clicks.
    """

    def __init__(
        self,
        folder: str | Path,
        schema: pa.Schema,
        *,
        default_reward: float | None = None,
        patience: float = 3600.0,
        part_rows: int = 10_000,
        part_seconds: float = 300.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open or make the folder, and take up what an earlier service left.

        Args:
            folder: where the parts are.
            schema: of `log_schema`.
            default_reward: of decisions that got none within `patience` seconds.
            part_rows, part_seconds: a part is written at the latest after so many rewarded
                decisions, or so many seconds after the last part, when the next event comes.
            now: the clock, seconds since 1970.

        Raises:
            InputError: when the folder cannot be written, is in use, or holds other columns.
        """
        if default_reward is not None and not math.isfinite(default_reward):
            raise InputError(f"the default reward is a finite number, not {default_reward}")
        self.folder, self.schema = Path(folder), schema
        self.default_reward, self.patience = default_reward, patience
        self.part_rows, self.part_seconds, self.now = part_rows, part_seconds, now
        self._guard = threading.RLock()
        self._waiting: dict[str, dict[str, Any]] = {}
        self._rewarded: dict[str, dict[str, Any]] = {}
        self._written: dict[str, float] = {}  # of the last part, so that repeats are recognized
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held = self._claim()
            self._fit(schema)
            self._take_up()
            self._journal: IO[str] = self._rewrite()
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written: {error.strerror or error}; give another --logs"
            ) from error
        self._last = self.now()

    # ---------------------------------------------------------------------------------- events

    def decided(self, row: Mapping[str, Any]) -> str:
        """Log a decision (all columns but id, time and reward); returns its id."""
        with self._guard:
            number = uuid.uuid4().hex
            held = {**row, "request_id": number, "decided_at": self.now()}
            self._append({"decision": held})
            self._waiting[number] = held
            self._turn()
            return number

    def rewarded(self, number: str, reward: float) -> None:
        """Log the reward of a decision. The same reward twice is taken once.

        Raises:
            InputError: when it is not a finite number, or another reward was logged before.
            Unknown: when no decision of that id waits for one.
        """
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            raise InputError(f"reward is {reward!r}; give a number")
        if not math.isfinite(reward):
            raise InputError(f"reward is {reward}; give a finite number")
        with self._guard:
            before = self._rewarded.get(number, {}).get("reward", self._written.get(number))
            if before is not None:
                if before == float(reward):
                    return
                raise InputError(f"decision {number} has the reward {before:g} already")
            if number not in self._waiting:
                raise Unknown(f"no decision {number!r} is waiting for a reward")
            self._append({"reward": float(reward), "request_id": number})
            self._rewarded[number] = {**self._waiting.pop(number), "reward": float(reward)}
            self._turn()

    @property
    def counts(self) -> dict[str, int]:
        """How many decisions wait for a reward, wait to be written, and are in parts."""
        with self._guard:
            rows = sum(pq.read_metadata(p).num_rows for p in self.parts)
            return {"waiting": len(self._waiting), "rewarded": len(self._rewarded), "written": rows}

    @property
    def parts(self) -> list[Path]:
        """The parts, in order."""
        return sorted(self.folder.glob("part-*.parquet"))

    def flush(self) -> Path | None:
        """Write the rewarded decisions as a part now; returns it, or None when there are none."""
        with self._guard:
            self._expire()
            self._last = self.now()
            if not self._rewarded:
                return None
            rows = sorted(self._rewarded.values(), key=lambda row: row["decided_at"])
            parts = self.parts
            number = 1 + (int(parts[-1].stem.removeprefix("part-")) if parts else 0)
            path = self.folder / f"part-{number:06d}.parquet"
            write_rows([self._typed(row) for row in rows], path, self.schema)
            self._written = {k: v["reward"] for k, v in self._rewarded.items()}
            self._rewarded = {}
            self._journal.close()
            self._journal = self._rewrite()
            return path

    def close(self) -> None:
        """Write what is rewarded, and leave the folder to others."""
        with self._guard:
            if not self._journal.closed:
                self.flush()
                self._journal.close()
            self._held.close()

    # ---------------------------------------------------------------------------------- inside

    def _turn(self) -> None:
        self._expire()
        late = self.now() - self._last >= self.part_seconds
        if len(self._rewarded) >= self.part_rows or (late and self._rewarded):
            self.flush()

    def _expire(self) -> None:
        if self.default_reward is None:
            return
        before = self.now() - self.patience
        for number, row in list(_while(self._waiting, lambda r: r["decided_at"] <= before)):
            self._append({"reward": self.default_reward, "request_id": number})
            del self._waiting[number]
            self._rewarded[number] = {**row, "reward": self.default_reward}

    def _typed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {f.name: as_arrow(row[f.name], f.type) for f in self.schema}

    def _append(self, event: Mapping[str, Any]) -> None:
        try:
            self._journal.write(json.dumps(event) + "\n")
            self._journal.flush()
        except OSError as error:
            raise InputError(
                f"{self.folder / JOURNAL} cannot be written: {error.strerror or error}"
            ) from error

    def _claim(self) -> IO[str]:
        import fcntl

        held = (self.folder / LOCK).open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held.close()
            raise InputError(
                f"{self.folder} is in use by another service; give another --logs"
            ) from error
        return held

    def _fit(self, schema: pa.Schema) -> None:
        if not self.parts:
            return
        found = pq.read_schema(self.parts[-1])
        if not found.equals(schema, check_metadata=False):
            differ = set(found.names) ^ set(schema.names)
            what = f"column {sorted(differ)[0]!r}" if differ else "the type of a column"
            raise InputError(
                f"{self.folder} holds decisions of another policy ({what} differs); "
                "give another --logs"
            )

    def _take_up(self) -> None:
        if self.parts:
            last = pq.read_table(self.parts[-1], columns=["request_id", "reward"])
            self._written = dict(
                zip(last["request_id"].to_pylist(), last["reward"].to_pylist(), strict=True)
            )
        for event in self._events():
            number = event.get("request_id") or event.get("decision", {}).get("request_id")
            if number in self._written:
                continue
            if "decision" in event:
                if {*event["decision"], "reward"} != set(self.schema.names):
                    raise InputError(f"{self.folder} holds decisions of another policy that wait "
                                     "for their reward; give another --logs")  # fmt: skip
                self._waiting[number] = event["decision"]
                if "reward" in event:
                    self._rewarded[number] = {
                        **self._waiting.pop(number), "reward": event["reward"]
                    }  # fmt: skip
            elif number in self._waiting:
                self._rewarded[number] = {**self._waiting.pop(number), "reward": event["reward"]}

    def _events(self) -> Iterator[dict[str, Any]]:
        path = self.folder / JOURNAL
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for place, line in enumerate(lines):
            if not line:
                continue
            try:
                event = json.loads(line)
            except ValueError as error:
                if place == len(lines) - 1:  # cut short by a crash: it was never acknowledged
                    continue
                raise InputError(
                    f"{path}, line {place + 1} is damaged; move it away to go on without the "
                    "decisions that waited for their reward"
                ) from error
            yield event

    def _rewrite(self) -> IO[str]:
        path = self.folder / JOURNAL
        with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
            for row in self._waiting.values():
                lines.write(json.dumps({"decision": row}) + "\n")
            for row in self._rewarded.values():
                plain = {k: v for k, v in row.items() if k != "reward"}
                lines.write(json.dumps({"decision": plain, "reward": row["reward"]}) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        return path.open("a", encoding="utf-8")


def _while(
    rows: Mapping[str, dict[str, Any]], holds: Callable[[dict[str, Any]], bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in rows.items():
        if not holds(row):
            return
        yield number, row
