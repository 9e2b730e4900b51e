"""Decision logs in tables of any kind and size: `open_table(path)`, then `.read()` whole or
`.batches()` in a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.arrays import as_table, is_number, pc, words
from surpass.data.checks import Block, codes_of, first_duplicate, read_block, summing_to_one
from surpass.data.columns import Columns, guess
from surpass.data.encoders import Encoder
from surpass.data.files import Part, at, kind_of, open_parts, stored_roles
from surpass.data.records import About, Decisions
from surpass.data.splits import LEARNING_SHARE, learning_rows
from surpass.errors import InputError

__all__ = ["MIN_ROWS", "Scan", "TableLog", "from_table", "open_table"]

MIN_ROWS = 100
BATCH = 1 << 17
_SAMPLE = 10_000
_FIT_ROWS = 1_000_000
_POSITIONS = 32
_NUMERIC_TEXT = (
    0.9  # a text column with more numbers than this is numeric with errors, not a category
)


@dataclass
class Scan:
    """What one pass over the role columns found; every row was checked.

    `values` are the distinct rewards where there are at most two; `counts` [A] how often each
    action was logged; `time` the first and last time; `in_order` whether times never fall.
    """

    rows: int = 0
    actions: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    reward_mean: float = 0.0
    reward_low: float = np.inf
    reward_high: float = -np.inf
    values: tuple[float, ...] | None = ()
    smallest_propensity: float = np.inf
    positions: tuple[str, ...] = ()
    time: tuple[float, float] | None = None
    in_order: bool = True


@dataclass(frozen=True)
class TableLog:
    """A decision log in one or many tables; nothing is held in memory until `read`.

    Attributes:
        name: what the report calls it.
        parts: its files or tables, in order.
        columns: which column is what; `columns.table()` shows it.
        names: the actions in the order of their numbers, where the caller gave them.
        categorical: context columns that are categories although they hold numbers.
        action_features: a description of each action, [A, k].
        seed: draws the rows that the encoder is fitted on (see
            `surpass.data.splits.learning_rows`).
        fixed: an encoder that was fitted before, such as that of a saved policy.
    """

    name: str
    parts: tuple[Part, ...]
    columns: Columns
    names: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    action_features: Tensor | None = None
    seed: int = 0
    fixed: Encoder | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    truth: Any = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.rows for part in self.parts)

    def __len__(self) -> int:
        return self.rows

    # ------------------------------------------------------------------------------------------
    # checks

    @cached_property
    def scan(self) -> Scan:
        """One pass over all rows of the role columns: counts and ranges, with every row checked.

        Raises:
            InputError: at the first bad row; when the log has fewer than 100 rows, one action, a
                constant reward or duplicate row ids.
        """
        if self.rows < MIN_ROWS:
            raise at(
                self.name, None, None, f"{self.rows} rows, at least {MIN_ROWS} are needed",
                "log more decisions",
            )  # fmt: skip
        return _Scanner(self).run()

    @property
    def actions(self) -> tuple[str, ...]:
        """The names of the actions, in the order of their numbers."""
        return self.scan.actions

    # ------------------------------------------------------------------------------------------
    # reading

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the context for streams: fitted on the first 30 % of the rows in file
        order, at most a million."""
        if self.fixed is not None:
            return self.fixed
        wanted = min(_FIT_ROWS, max(1, int(np.ceil(LEARNING_SHARE * self.rows))))
        pieces, held = [], 0
        for _, _, batch in self._raw(list(self.columns.context), BATCH):
            pieces.append(batch.slice(0, wanted - held))
            held += pieces[-1].num_rows
            if held >= wanted:
                break
        return self._fit(self._table(pieces))

    def read(
        self,
        *,
        fit_on: Int[Tensor, "n"] | Sequence[int] | None = None,
        encoder: Encoder | None = None,
    ) -> Decisions:
        """The whole log in memory.

        Args:
            fit_on: the rows that the encoder of the context is fitted on. By default those that
                the first stage of `surpass.improve` learns from with the same seed: the first 30
                %, in time, or of a permutation of units.
            encoder: use this one instead of fitting.

        Raises:
            InputError: at the first bad row.
        """
        scan = self.scan
        blocks, pieces = [], []
        for part, start, batch in self._raw(list(self.columns.used), BATCH):
            block = read_block(batch, self.columns, part.name, start)
            blocks.append(self._arrays(block, scan))
            pieces.append(batch.select(list(self.columns.context)))
        held = {k: np.concatenate([b[k] for b in blocks]) for k in blocks[0]}
        if "group" in held:
            held["group"] = np.unique(held["group"], return_inverse=True)[1].reshape(-1)
        table = self._table(pieces)
        encoder = encoder or self.fixed
        if encoder is None:
            rows = (
                learning_rows(
                    self.rows, group=held.get("group"), time=held.get("time"), seed=self.seed
                )
                if fit_on is None
                else np.asarray(fit_on)
            )
            encoder = self._fit(table.take(pa.array(rows)))
        context = torch.cat([encoder.transform(batch) for batch in pieces])
        return self._decisions(held, context, self.about(encoder))

    def batches(self, rows: int = 65_536) -> Iterator[Decisions]:
        """The log in order, `rows` at a time, in constant memory; all batches share one `about`.

        `group` holds codes that are equal for equal groups in all batches, but not consecutive.
        """
        about = self.about(self.encoder)
        for part, start, batch in self._raw(list(self.columns.used), rows):
            block = read_block(batch, self.columns, part.name, start)
            context = self.encoder.transform(batch.select(list(self.columns.context)))
            yield self._decisions(self._arrays(block, self.scan), context, about)

    def about(self, encoder: Encoder) -> About:
        """What is true of the log as a whole."""
        names = {"context": encoder.names, "columns": self.columns.context}
        if self.scan.positions:
            names["position"] = self.scan.positions
        provenance = {
            "source": self.name,
            "files": [p.name for p in self.parts],
            "roles": [list(r) for r in self.columns.table()],
            "encoder_rows": encoder.fitted_on,
            **self.provenance,
        }
        return About(
            name=self.name,
            actions=self.actions,
            action_features=self.action_features,
            names=names,
            encoder=encoder,
            provenance=provenance,
        )

    def raw(self, rows: int = BATCH) -> Iterator[pa.RecordBatch]:
        """The raw columns, as they are in the files, in a stream."""
        for _, _, batch in self._raw(list(self.columns.used), rows):
            yield batch

    # ------------------------------------------------------------------------------------------
    # inside

    def _raw(self, columns: list[str], size: int) -> Iterator[tuple[Part, int, pa.RecordBatch]]:
        for part in self.parts:
            start = 0
            for batch in part.batches(columns, size):
                yield part, start, batch
                start += batch.num_rows

    def _table(self, pieces: list[pa.RecordBatch]) -> pa.Table:
        if not self.columns.context:
            return pa.table({})
        tables = [pa.Table.from_batches([p]) for p in pieces]
        return pa.concat_tables(tables, promote_options="permissive")

    def _fit(self, table: pa.Table) -> Encoder:
        categorical = set(self.categorical)
        if self.columns.position in self.columns.context and len(self.scan.positions) <= _POSITIONS:
            categorical |= {str(self.columns.position)}
        for name in self.columns.context:
            if kind_of(table[name].type) == "text" and name not in categorical:
                self._refuse_numeric_text(name, table[name])
        return Encoder.fit(
            table, self.columns.context, categorical=sorted(categorical), log=self.name
        )

    def _refuse_numeric_text(self, name: str, column: pa.ChunkedArray) -> None:
        """A text column that is nearly all numbers is a numeric column with a stray word in it."""
        found = words(column).drop_null().unique().to_pylist()
        good = sum(map(is_number, found))
        if good == len(found) or good <= max(_POSITIONS, _NUMERIC_TEXT * len(found)):
            return
        for part, start, batch in self._raw([name], BATCH):
            for i, word in enumerate(words(batch[name]).to_pylist()):
                if word is not None and not is_number(word):
                    raise at(
                        part.name, name, start + i + 1, f"{word!r} is not a number, the others are",
                        f"write a number or leave it empty, or --categorical {name}",
                    )  # fmt: skip

    def _arrays(self, block: Block, scan: Scan) -> dict[str, np.ndarray]:
        codes = codes_of(block, self.columns, scan.actions)
        out: dict[str, np.ndarray] = {"action": codes, "reward": block.reward}
        if block.propensities is not None:
            table = summing_to_one(block.propensities)
            out["propensities"] = table
            out["propensity"] = table[np.arange(len(codes)), codes]
        elif block.propensity is not None:
            out["propensity"] = block.propensity
        else:  # uniform
            offered = block.available
            if offered is None:
                offered = np.ones((len(codes), len(scan.actions)), dtype=bool)
            out["propensities"] = offered / offered.sum(1, keepdims=True)
            out["propensity"] = 1 / offered.sum(1)
        if block.position is not None:
            order = pa.array(scan.positions, pa.string())
            out["position"] = np.asarray(pc.index_in(block.position, value_set=order))
        for name in ("available", "time", "cost", "instrument", "group"):
            if (values := getattr(block, name)) is not None:
                out[name] = values
        return out

    def _decisions(
        self, held: dict[str, np.ndarray], context: Float[Tensor, "N d"], about: About
    ) -> Decisions:
        tensors = {
            k: torch.from_numpy(np.require(v, requirements=["C", "W"])) for k, v in held.items()
        }
        for name in ("position", "group"):
            if name in tensors:
                tensors[name] = tensors[name].long()
        log = Decisions(
            context=context,
            **tensors,
            batch_size=[len(context)],  # type: ignore[call-arg]
        )
        return log.described(about)


class _Scanner:
    """One pass over the role columns."""

    def __init__(self, log: TableLog) -> None:
        self.log = log
        self.found = Scan(rows=log.rows)
        self.counts: dict[str, int] = {}
        self.positions: set[str] = set()
        self.ids: list[np.ndarray] = []
        self.total = 0.0
        self.known = 0
        self.empty: tuple[str, int] | None = None
        self.width = 0

    def run(self) -> Scan:
        log, columns = self.log, self.log.columns
        for part, start, batch in log._raw(list(columns.roles), BATCH):
            block = read_block(batch, columns, part.name, start)
            self.see(block)
        self.reward_varies()
        self.found.actions = self.vocabulary()
        self.found.counts = tuple(self.counts.get(a, 0) for a in self.found.actions)
        if sum(c > 0 for c in self.found.counts) < 2:
            raise at(
                log.name, columns.action, None,
                f"only one action was ever logged, {next(iter(self.counts))!r}",
                "nothing can be compared; log with some exploration",
            )  # fmt: skip
        self.found.positions = tuple(sorted(self.positions, key=_natural))
        self.found.reward_mean = self.total / self.known
        self.no_duplicates()
        if columns.propensities or columns.available or log.names:
            self.second_look()
        return self.found

    def see(self, block: Block) -> None:
        found = self.found
        for entry in block.action.value_counts().to_pylist():
            self.counts[entry["values"]] = self.counts.get(entry["values"], 0) + entry["counts"]
        reward = block.reward
        if np.isnan(reward).all():
            self.empty = self.empty or (block.file, block.start + 1)
        else:
            self.known += len(reward)
            self.total += float(reward.sum())
            found.reward_low = min(found.reward_low, float(reward.min()))
            found.reward_high = max(found.reward_high, float(reward.max()))
            if found.values is not None:
                distinct = set(found.values) | set(np.unique(reward).tolist())
                found.values = tuple(sorted(distinct)) if len(distinct) <= 2 else None
        if block.propensity is not None:
            found.smallest_propensity = min(
                found.smallest_propensity, float(block.propensity.min())
            )
        if block.propensities is not None:
            self.width = block.propensities.shape[1]
        if block.position is not None:
            self.positions |= set(block.position.unique().to_pylist())
        if block.time is not None:
            low, high = float(block.time.min()), float(block.time.max())
            before = found.time
            ordered = bool((np.diff(block.time) >= 0).all())
            after = before is None or float(block.time[0]) >= before[1]
            found.in_order = found.in_order and ordered and after
            found.time = (min(low, before[0]), max(high, before[1])) if before else (low, high)
        if block.row_id is not None:
            self.ids.append(block.row_id)

    def reward_varies(self) -> None:
        name, column, found = self.log.name, self.log.columns.reward, self.found
        if not self.known:
            raise at(
                name, column, None, "the reward is missing in every row", "name another column"
            )
        if self.empty:
            raise at(
                self.empty[0], column, self.empty[1], "the reward is missing",
                "write the reward, 0 where nothing happened, or drop the row",
            )  # fmt: skip
        if found.reward_low == found.reward_high:
            raise at(
                name, column, None,
                f"the reward is {found.reward_low:g} in every one of {found.rows} rows",
                "nothing can be learned from it; name another column with --reward",
            )  # fmt: skip

    def vocabulary(self) -> tuple[str, ...]:
        log = self.log
        if log.names or log.columns.actions:
            return log.names or log.columns.actions
        seen = sorted(self.counts, key=_natural)
        if len(seen) > self.found.rows // 2:
            raise at(
                log.name, log.columns.action, None,
                f"{len(seen)} different actions in {self.found.rows} rows",
                "it looks like an id; name the action's column with --action",
            )  # fmt: skip
        if self.width and all(a.isdigit() and int(a) < self.width for a in seen):
            return tuple(str(k) for k in range(self.width))
        if self.width and len(seen) != self.width:
            raise at(
                log.name, log.columns.propensities[0], None,
                f"{self.width} propensities a row, but {len(seen)} actions were logged",
                "name all actions in the order of the propensities with --actions",
            )  # fmt: skip
        return tuple(seen)

    def second_look(self) -> None:
        """What can be checked only when the actions are known."""
        log = self.log
        for part, start, batch in log._raw(list(log.columns.roles), BATCH):
            codes_of(
                read_block(batch, log.columns, part.name, start), log.columns, self.found.actions
            )

    def no_duplicates(self) -> None:
        if not self.ids or (twice := first_duplicate(np.concatenate(self.ids))) is None:
            return
        log, column = self.log, str(self.log.columns.row_id)
        places = []
        for row in twice:
            for part in log.parts:
                if row < part.rows:
                    places.append((part.name, row + 1))
                    break
                row -= part.rows
        (file, row), (first_file, first_row) = places
        inside = "" if file == first_file else f" of {first_file}"
        raise at(
            file, column, row, f"this row id was already in row {first_row}{inside}",
            "drop the duplicates, or --row-id none if it is not an id",
        )  # fmt: skip


def _natural(word: str) -> tuple[int, float, str]:
    return (0, float(word), word) if is_number(word) else (1, 0.0, word)


# ----------------------------------------------------------------------------------------------
# opening


def open_table(
    path: str | Path,
    *,
    actions: Sequence[str] | str | None = None,
    categorical: Sequence[str] | str = (),
    seed: int = 0,
    encoder: Encoder | None = None,
    **roles: Any,
) -> TableLog:
    """A log in a Parquet, CSV, JSONL or Arrow file, or in a folder of such files.

    Args:
        path: the file or folder.
        actions: all actions in the order of their numbers, when the log does not show them all.
        categorical: context columns that are categories although they hold numbers.
        seed: draws the rows that the encoder is fitted on, where there is no time.
        encoder: one that was fitted before.
        roles: which column is what, such as `action="arm"`, `context="age,city"`; `"none"` for no
            such role, None to guess.

    Raises:
        InputError: when the file cannot be read, or a column is missing.
    """
    parts = open_parts(path)
    return _open(str(path), parts, actions, categorical, seed, encoder, roles)


def from_table(
    data: Any,
    *,
    name: str = "table",
    actions: Sequence[str] | str | None = None,
    categorical: Sequence[str] | str = (),
    seed: int = 0,
    encoder: Encoder | None = None,
    **roles: Any,
) -> TableLog:
    """A log in memory: a pandas or polars DataFrame, a pyarrow Table, or a dict of arrays. See
    `open_table`."""
    table = as_table(data)
    if table.num_rows == 0:
        raise at(name, None, None, "the table is empty", "give a log with a row per decision")
    part = Part(name, "memory", table.schema, table.num_rows, table=table)
    return _open(name, [part], actions, categorical, seed, encoder, roles)


def _open(
    name: str, parts: list[Part], actions: Any, categorical: Any, seed: int, encoder: Any,
    roles: dict[str, Any],
) -> TableLog:  # fmt: skip
    first = parts[0]
    head = next(iter(first.batches(list(first.schema.names), min(_SAMPLE, first.rows))))
    written = stored_roles(first.schema)
    given = {**written, **{k: v for k, v in roles.items() if v is not None}}
    if "context" not in roles and "context" in written:
        others = {v for k, v in given.items() if k != "context" and isinstance(v, str)}
        given["context"] = [c for c in written["context"] if c not in others]
    actions = actions or given.pop("actions", None)
    given.pop("actions", None)
    listed = actions.split(",") if isinstance(actions, str) else actions or ()
    names = tuple(str(a).strip() for a in listed)
    columns = guess(first.schema, pa.Table.from_batches([head]), name, names, **given)
    kinds = tuple(categorical.split(",")) if isinstance(categorical, str) else tuple(categorical)
    for kind in kinds:
        if kind not in columns.context:
            raise InputError(
                f"{name}: column {kind!r} (asked for as categorical) is not in the context"
            )
    return TableLog(
        name=name,
        parts=tuple(parts),
        columns=columns,
        names=names,
        categorical=kinds,
        seed=seed,
        fixed=encoder,
    )
