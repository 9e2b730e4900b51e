"""The role columns of a block of rows as arrays, with every row checked: the first bad row is
named exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from surpass.data.arrays import first_true, number_columns, numbers, pc, plain, seconds, words
from surpass.data.columns import UNIFORM, Columns
from surpass.data.files import at, kind_of
from surpass.errors import nearest

__all__ = ["Block", "codes_of", "first_duplicate", "read_block", "stable_codes",
           "summing_to_one"]  # fmt: skip

SUM_TOLERANCE = 1e-3  # of a row of propensities: logs round their digits
ROUNDED = 1e-6  # from here on a sum is off by rounded digits, and not by single precision
_MEND_P = "log the probability with which the action was chosen, in (0, 1]"


@dataclass
class Block:
    """Consecutive rows of one part, numpy arrays of N rows; `start` rows of the part stand before
    them.

    `action` holds words; `group` and `row_id` are stable 64-bit codes of words, equal in every
    block.
    """

    file: str
    start: int
    action: pa.Array
    reward: Float[np.ndarray, "N"]
    propensity: Float[np.ndarray, "N"] | None = None
    propensities: Float[np.ndarray, "N A"] | None = None
    available: Bool[np.ndarray, "N A"] | None = None
    offered: pa.Array | None = None
    time: Float[np.ndarray, "N"] | None = None
    position: pa.Array | None = None
    cost: Float[np.ndarray, "N"] | None = None
    instrument: Float[np.ndarray, "N"] | None = None
    group: Int[np.ndarray, "N"] | None = None
    row_id: Int[np.ndarray, "N"] | None = None

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class _Bad:
    """A bad row: candidates are collected, and the first row is told."""

    row: int
    column: str
    what: str
    mend: str


def read_block(batch: pa.RecordBatch, columns: Columns, file: str, start: int) -> Block:
    """The role columns as arrays.

    Raises:
        InputError: at the first row with a bad reward, propensity, time, action, position, cost
            or group.
    """
    bad: list[_Bad] = []
    action = words(batch[columns.action])
    _missing(bad, columns.action, action, "the action is missing", "drop the row")
    block = Block(file, start, action, numbers(batch[columns.reward], file, columns.reward, start))
    _reward(bad, columns.reward, block.reward)
    if columns.propensity not in (None, UNIFORM):
        assert columns.propensity is not None
        block.propensity = numbers(batch[columns.propensity], file, columns.propensity, start)
        _probability(bad, columns.propensity, block.propensity)
    if columns.propensities:
        block.propensities = _many(batch, columns.propensities, file, start)
        _full_rows(bad, columns, block.propensities)
    if columns.available:
        _availability(block, batch, columns, file, start)
    if columns.time:
        block.time = seconds(batch[columns.time], file, columns.time, start)
        _not_nan(
            bad, columns.time, block.time, "the time is missing", "drop the row, or --time none"
        )
    if columns.cost:
        block.cost = numbers(batch[columns.cost], file, columns.cost, start)
        _not_nan(
            bad, columns.cost, block.cost, "the cost is missing", "write 0 where there was none"
        )
    if columns.instrument:
        name = columns.instrument
        block.instrument = numbers(batch[name], file, name, start)
        _not_nan(bad, name, block.instrument, "the instrument is missing", "drop the row")
    if columns.position:
        block.position = words(batch[columns.position])
        _missing(bad, columns.position, block.position, "the position is missing", "drop the row")
    if columns.group:
        array = plain(batch[columns.group])
        _missing(bad, columns.group, array, "the group is missing", "fill it, or --group none")
        block.group = stable_codes(array)
    if columns.row_id:
        array = plain(batch[columns.row_id])
        _missing(bad, columns.row_id, array, "the row id is missing", "fill it, or --row-id none")
        block.row_id = stable_codes(array)
    if bad:
        worst = min(bad, key=lambda b: b.row)
        raise at(file, worst.column, start + worst.row + 1, worst.what, worst.mend)
    return block


def _reward(bad: list[_Bad], column: str, reward: np.ndarray) -> None:
    if (i := first_true(~np.isfinite(reward))) is not None and not np.isnan(reward).all():
        what = (
            "the reward is missing"
            if np.isnan(reward[i])
            else f"{reward[i]:g} is not a finite reward"
        )
        bad.append(
            _Bad(i, column, what, "write the reward, 0 where nothing happened, or drop the row")
        )


def _probability(bad: list[_Bad], column: str, p: np.ndarray) -> None:
    if (i := first_true(~((p > 0) & (p <= 1)))) is None:
        return
    value = p[i]
    if np.isnan(value):
        what = "the propensity is missing (NaN)"
    elif value == 0:
        what = "propensity 0, but the action was taken"
    else:
        what = f"propensity {value:g} is {'negative' if value < 0 else 'above 1'}"
    bad.append(_Bad(i, column, what, _MEND_P))


def _full_rows(bad: list[_Bad], columns: Columns, table: np.ndarray) -> None:
    names: Sequence[str] = columns.propensities
    wrong: Any = (table < 0) | (table > 1) | np.isnan(table)
    if (i := first_true(wrong.any(1))) is not None:
        k = int(wrong[i].argmax())
        name = _own(names, k) if len(names) > 1 else f"{_own(names, k)}[{k}]"
        value = table[i, k]
        what = (
            "the propensity is missing (NaN)"
            if np.isnan(value)
            else f"propensity {value:g} is not in [0, 1]"
        )
        bad.append(_Bad(i, name, what, "log the probability of every action"))
        return
    totals = table.sum(1)
    if (i := first_true(np.abs(totals - 1) > SUM_TOLERANCE)) is not None:
        name = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
        bad.append(
            _Bad(
                i, name, f"the propensities sum to {totals[i]:.6g}, not to 1",
                "log the probability of every action",
            )
        )  # fmt: skip


def summing_to_one(table: Float[np.ndarray, "N A"]) -> Float[np.ndarray, "N A"]:
    """Propensities whose rounded digits miss a sum of 1, scaled: else a policy that does sum to 1
    would gain the missing mass times the reward on the one that was logged."""
    total = table.sum(1, keepdims=True)
    return np.where(np.abs(total - 1) > ROUNDED, table / total, table)


def _many(batch: pa.RecordBatch, names: tuple[str, ...], file: str, start: int) -> np.ndarray:
    if len(names) == 1:
        return number_columns(batch[names[0]], None, file, names[0], start)
    return np.stack([numbers(batch[n], file, n, start) for n in names], axis=1)


def _availability(
    block: Block, batch: pa.RecordBatch, columns: Columns, file: str, start: int
) -> None:
    """Flags per action, [N, A]; or lists of the actions on offer, which wait until the actions
    are known."""
    names = columns.available
    if len(names) == 1:
        array = plain(batch[names[0]])
        if kind_of(array.type) != "list":
            raise at(
                file, names[0], None, "holds no lists",
                "give one column of flags per action, or lists of the actions on offer",
            )  # fmt: skip
        if not pa.types.is_boolean(array.type.value_type):
            block.offered = array
            return
    block.available = _many(batch, names, file, start) > 0


def _missing(bad: list[_Bad], column: str, array: pa.Array, what: str, mend: str) -> None:
    if array.null_count:
        i = first_true(array.is_null().to_numpy(zero_copy_only=False))
        assert i is not None
        bad.append(_Bad(i, column, what, mend))


def _not_nan(bad: list[_Bad], column: str, values: np.ndarray, what: str, mend: str) -> None:
    if (i := first_true(~np.isfinite(values))) is not None:
        bad.append(_Bad(i, column, what, mend))


def stable_codes(array: pa.Array) -> Int[np.ndarray, "N"]:
    """One int64 per value, the same in every block and every run: whole numbers themselves, words
    by BLAKE2 (64 bits)."""
    if pa.types.is_integer(array.type):
        return pc.cast(array.fill_null(0), pa.int64(), safe=False).to_numpy(zero_copy_only=False)
    encoded = words(array).dictionary_encode()
    table = np.array(
        [
            int.from_bytes(
                blake2b((w or "").encode(), digest_size=8).digest(), "little", signed=True
            )
            for w in encoded.dictionary.to_pylist()
        ]
        or [0],
        dtype=np.int64,
    )
    return table[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]


def codes_of(block: Block, columns: Columns, actions: tuple[str, ...]) -> Int[np.ndarray, "N"]:
    """The number of each logged action, with what depends on it checked, and `available` filled
    in.

    Raises:
        InputError: at the first row with an unknown action, a propensity of another action, an
            action that was not on offer, or mass on one that was not.
    """
    found = pc.index_in(block.action, value_set=pa.array(actions, pa.string()))
    codes = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if (i := first_true(codes < 0)) is not None:
        word = block.action[i].as_py()
        raise at(
            block.file, columns.action, block.start + i + 1,
            f"action {word!r} is none of the {len(actions)} actions{nearest(str(word), actions)}",
            "name all actions, in the order of the propensities",
        )  # fmt: skip
    if block.offered is not None:
        block.available = _offered(block, columns, actions)
    rows = np.arange(len(codes))
    if block.propensities is not None:
        _same_propensity(block, columns, actions, codes)
    if block.available is not None:
        where = columns.available[0]
        if block.available.shape[1] != len(actions):
            raise at(
                block.file, where, block.start + 1,
                f"flags for {block.available.shape[1]} actions, but there are {len(actions)}",
                "give a flag for every action",
            )  # fmt: skip
        if (i := first_true(~block.available[rows, codes])) is not None:
            raise at(
                block.file, _own(columns.available, codes[i]), block.start + i + 1,
                f"action {actions[codes[i]]!r} was taken but not available", "mend one of them",
            )  # fmt: skip
        if block.propensities is not None:
            lost = (block.propensities > 0) & ~block.available
            if (i := first_true(lost.any(1))) is not None:
                k = int(lost[i].argmax())
                raise at(
                    block.file, _own(columns.propensities, k), block.start + i + 1,
                    f"propensity {block.propensities[i, k]:g} of action {actions[k]!r}, "
                    "which was not available", "mend one of them",
                )  # fmt: skip
    return codes


def _same_propensity(
    block: Block, columns: Columns, actions: tuple[str, ...], codes: np.ndarray
) -> None:
    assert block.propensities is not None
    width = block.propensities.shape[1]
    if width != len(actions):
        raise at(
            block.file, columns.propensities[0], block.start + 1,
            f"{width} propensities, but there are {len(actions)} actions",
            "log one for every action",
        )  # fmt: skip
    own = block.propensities[np.arange(len(codes)), codes]
    if (i := first_true(own <= 0)) is not None:
        raise at(
            block.file, _own(columns.propensities, codes[i]), block.start + i + 1,
            f"propensity 0 of action {actions[codes[i]]!r}, but the action was taken", _MEND_P,
        )  # fmt: skip
    if block.propensity is None:
        return
    off = np.abs(own - block.propensity) > SUM_TOLERANCE * np.maximum(own, block.propensity) + 1e-6
    if (i := first_true(off)) is not None:
        other = np.abs(block.propensities[i] - block.propensity[i])
        k = int(other.argmin())
        whose = f", it is that of action {actions[k]!r}" if other[k] < 1e-6 else ""
        raise at(
            block.file, columns.propensity, block.start + i + 1,
            f"propensity {block.propensity[i]:g} is not that of the logged action "
            f"{actions[codes[i]]!r}, {own[i]:g}{whose}",
            "log the propensity of the action that was taken",
        )  # fmt: skip


def _own(names: Sequence[str], action: int) -> str:
    """The column of an action, where there is one per action."""
    return names[action] if len(names) > 1 else names[0]


def _offered(block: Block, columns: Columns, actions: tuple[str, ...]) -> np.ndarray:
    assert block.offered is not None
    flags = np.zeros((len(block), len(actions)), dtype=bool)
    lengths = pc.list_value_length(block.offered).fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(block)), lengths)
    known = pc.index_in(words(block.offered.flatten()), value_set=pa.array(actions, pa.string()))
    which = known.fill_null(-1).to_numpy(zero_copy_only=False)
    flags[rows[which >= 0], which[which >= 0]] = True
    return flags


def first_duplicate(codes: np.ndarray) -> tuple[int, int] | None:
    """The first row whose code occurred before, and where it did, both 0-based; or None."""
    ordered = np.sort(codes)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.argsort(codes, kind="stable")
    again = order[1:][codes[order[1:]] == codes[order[:-1]]]
    row = int(again.min())
    return row, int(np.flatnonzero(codes[:row] == codes[row])[0])
