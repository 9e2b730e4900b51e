"""Context columns as numbers: fitted on the first learning rows, then fixed, saved with every
policy.

Numbers keep their values; a missing one is filled with the median, and an indicator says so.
Categories become one-hot columns, rare and later levels pooled as `(other)`, a missing value its
own level; columns of very many levels are hashed (Weinberger et al., "Feature Hashing for Large
Scale Multitask Learning", 2009). This is what scikit-learn's SimpleImputer, OneHotEncoder
(infrequent levels) and FeatureHasher do; it is written out here so that it is JSON and a torch
graph.

The work has two halves. `split` looks words up, on the host, and gives `numbers` [N, p] (NaN
where missing) and `codes` [N, q]; `graph()` is a torch module without any data-dependent control
flow that turns both into the context [N, d], so it can be traced into ONNX in front of a policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.data.arrays import as_table, number_columns, numbers, pc, plain, seconds, words
from surpass.data.files import kind_of
from surpass.errors import InputError, nearest

__all__ = ["Categories", "Encoder", "EncoderGraph", "Number"]

OTHER, MISSING = "(other)", "(missing)"
_DAY = 86400.0


@dataclass(frozen=True)
class Number:
    """A numeric column (or one entry of a list column): `fill` replaces a missing value,
    `flagged` adds an indicator.

    `time` columns are days since 1970 (UTC).
    """

    column: str
    fill: float
    flagged: bool
    index: int | None = None
    time: bool = False

    @property
    def name(self) -> str:
        """The output column's name."""
        return self.column if self.index is None else f"{self.column}[{self.index}]"


@dataclass(frozen=True)
class Categories:
    """A column of words. `levels` get a column each, then `(other)`, then `(missing)` if it
    occurred while fitting.

    With `buckets` > 0 the words are hashed (MurmurHash3, 32 bits, seed 0, modulo `buckets`)
    instead.
    """

    column: str
    levels: tuple[str, ...] = ()
    missing: bool = False
    buckets: int = 0

    @property
    def width(self) -> int:
        """How many output columns there are."""
        return self.buckets or len(self.levels) + 1 + self.missing

    @property
    def names(self) -> tuple[str, ...]:
        """The output columns' names."""
        if self.buckets:
            return tuple(f"{self.column}#{b}" for b in range(self.buckets))
        ends = (OTHER, MISSING) if self.missing else (OTHER,)
        return tuple(f"{self.column}={level}" for level in (*self.levels, *ends))

    def codes(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """The number of each row's level, int64 [N]."""
        array = words(column)
        if self.buckets:
            encoded = array.dictionary_encode()
            table = np.array([self.bucket(w) for w in encoded.dictionary.to_pylist()] or [0])
            codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            return np.where(codes < 0, self.bucket(MISSING), table[codes]).astype(np.int64)
        known = pc.index_in(array, value_set=pa.array(self.levels, pa.string()))
        codes = known.fill_null(len(self.levels)).to_numpy(zero_copy_only=False).astype(np.int64)
        if self.missing and array.null_count:
            empty = array.is_null().to_numpy(zero_copy_only=False)
            codes = np.where(empty, len(self.levels) + 1, codes)
        return codes

    def bucket(self, word: str) -> int:
        """The bucket that a word is hashed to."""
        from sklearn.utils import murmurhash3_32

        return int(murmurhash3_32(word, seed=0, positive=True)) % self.buckets


@dataclass(frozen=True)
class Encoder:
    """Turns context columns into `context` [N, d]: numbers first, then missing indicators, then
    one-hot columns.

    `fitted_on` is the number of rows that levels and medians come from.
    """

    numeric: tuple[Number, ...] = ()
    categorical: tuple[Categories, ...] = ()
    fitted_on: int = 0

    @classmethod
    def fit(
        cls,
        data: Any,
        columns: Iterable[str] | None = None,
        *,
        categorical: Sequence[str] = (),
        max_levels: int = 32,
        min_share: float = 0.001,
        min_count: int = 5,
        hash_above: int = 1000,
        buckets: int = 64,
        log: str = "the log",
    ) -> Encoder:
        """Learn levels and medians from these rows.

        Args:
            data: a table, a DataFrame or a dict of columns.
            columns: which of its columns; all by default.
            categorical: columns to treat as categories although they hold numbers.
            max_levels: at most this many levels of a column, the most frequent ones, get a column
                of their own.
            min_share, min_count: a level in a smaller share of the rows, or in fewer rows, is
            pooled
                as `(other)`.
            hash_above: a column with more levels than this is hashed into `buckets` columns.
            log: what errors call the data.

        Raises:
            InputError: when a column is missing or of a type that cannot be encoded.
        """
        table = as_table(data)
        numeric: list[Number] = []
        kinds: list[Categories] = []
        floor = max(min_count, min_share * table.num_rows)
        for name in table.column_names if columns is None else columns:
            column = _get(table, name)
            kind = kind_of(column.type)
            if kind == "text" or name in categorical:
                kinds.append(_levels(name, column, max_levels, floor, hash_above, buckets))
            elif kind == "list":
                values = number_columns(column, None, log, name)
                numeric += [_number(name, values[:, j], index=j) for j in range(values.shape[1])]
            elif kind in ("number", "nothing"):
                numeric.append(_number(name, numbers(column, log, name)))
            elif kind == "time":
                numeric.append(_number(name, seconds(column, log, name) / _DAY, time=True))
            else:
                raise InputError(
                    f"{log}: column {name!r} holds {kind}, which cannot be encoded; flatten it, "
                    "or leave it out with --context"
                )
        return cls(tuple(numeric), tuple(kinds), table.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that are needed, each once."""
        return tuple(dict.fromkeys(c.column for c in (*self.numeric, *self.categorical)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the d output columns, such as `age`, `age missing`, `city=Paris`,
        `city=(other)`, `url#17`."""
        flags = tuple(f"{c.name} missing" for c in self.numeric if c.flagged)
        ones = tuple(name for c in self.categorical for name in c.names)
        return tuple(c.name for c in self.numeric) + flags + ones

    @property
    def width(self) -> int:
        """d, the number of output columns."""
        return len(self.names)

    def split(self, data: Any) -> tuple[Float[Tensor, "N p"], Int[Tensor, "N q"]]:
        """The host half: `numbers` [N, p] with NaN where missing, and `codes` [N, q] of the
        levels."""
        table = as_table(data)
        n = table.num_rows
        left = np.full((n, len(self.numeric)), np.nan, dtype=np.float32)
        lists: dict[str, np.ndarray] = {}
        widths = {c.column: (c.index or 0) + 1 for c in self.numeric}
        for j, c in enumerate(self.numeric):
            column = _get(table, c.column)
            if c.time:
                left[:, j] = seconds(column, "the log", c.column) / _DAY
            elif c.index is None:
                left[:, j] = numbers(column, "the log", c.column)
            else:
                if c.column not in lists:
                    lists[c.column] = number_columns(column, widths[c.column], "the log", c.column)
                left[:, j] = lists[c.column][:, c.index]
        left[~np.isfinite(left)] = np.nan
        right = np.zeros((n, len(self.categorical)), dtype=np.int64)
        for j, c in enumerate(self.categorical):
            right[:, j] = c.codes(_get(table, c.column))
        return torch.from_numpy(left), torch.from_numpy(right)

    def graph(self) -> EncoderGraph:
        """The graph half: a torch module from `numbers` [N, p] and `codes` [N, q] to the context
        [N, d]."""
        return EncoderGraph(self)

    def transform(self, data: Any) -> Float[Tensor, "N d"]:
        """Encode a table, a DataFrame or a dict of columns, float32 [N, d].

        Raises:
            InputError: when a column is missing, or holds text where numbers were fitted.
        """
        return self._graph(*self.split(data))

    @cached_property
    def _graph(self) -> EncoderGraph:
        return EncoderGraph(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "numeric": [asdict(c) for c in self.numeric],
            "categorical": [{**asdict(c), "levels": list(c.levels)} for c in self.categorical],
            "fitted_on": self.fitted_on,
            "names": list(self.names),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Encoder:
        """The encoder that `to_json` wrote.

        Raises:
            InputError: when entries are missing or unknown.
        """
        try:
            return cls(
                tuple(Number(**c) for c in data["numeric"]),
                tuple(
                    Categories(**{**c, "levels": tuple(c["levels"])}) for c in data["categorical"]
                ),
                int(data["fitted_on"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"the encoder's JSON is not readable: {error}; save it again"
            ) from error


class EncoderGraph(nn.Module):
    """The graph half of an encoder; everything it knows is in buffers."""

    fill: Tensor
    flagged: Tensor
    owner: Tensor
    level: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        flags = [j for j, c in enumerate(encoder.numeric) if c.flagged]
        owner = [j for j, c in enumerate(encoder.categorical) for _ in range(c.width)]
        level = [k for c in encoder.categorical for k in range(c.width)]
        self.register_buffer("fill", torch.tensor([c.fill for c in encoder.numeric]))
        self.register_buffer("flagged", torch.tensor(flags, dtype=torch.int64))
        self.register_buffer("owner", torch.tensor(owner, dtype=torch.int64))
        self.register_buffer("level", torch.tensor(level, dtype=torch.int64))

    def forward(
        self, numbers: Float[Tensor, "N p"], codes: Int[Tensor, "N q"]
    ) -> Float[Tensor, "N d"]:
        """The context [N, d]: filled numbers, missing indicators, one-hot levels."""
        empty = numbers.isnan()
        filled = torch.where(empty, self.fill, numbers)
        flags = empty.index_select(1, self.flagged).to(numbers.dtype)
        ones = (codes.index_select(1, self.owner) == self.level).to(numbers.dtype)
        return torch.cat((filled, flags, ones), 1)


def _get(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(
            f"context column {name!r} is missing{nearest(name, table.column_names)}; give all "
            "of the columns that the encoder was fitted on"
        )
    return table[name]


def _number(name: str, values: np.ndarray, index: int | None = None, time: bool = False) -> Number:
    empty = ~np.isfinite(values)
    fill = 0.0 if empty.all() else float(np.median(values[~empty]))
    return Number(name, fill, bool(empty.any()), index, time)


def _levels(
    name: str, column: Any, max_levels: int, floor: float, hash_above: int, buckets: int
) -> Categories:
    array = words(plain(column))
    counts = [(c["values"], c["counts"]) for c in pc.value_counts(array).to_pylist()]
    found = [(w, n) for w, n in counts if w is not None]
    if len(found) > hash_above:
        return Categories(name, buckets=buckets)
    kept = sorted(found, key=lambda c: (-c[1], c[0]))[:max_levels]
    levels = sorted((w for w, n in kept if n >= floor), key=_natural)
    return Categories(name, tuple(levels), missing=array.null_count > 0)


def _natural(word: str) -> tuple[int, float, str]:
    try:
        return (0, float(word), word)
    except ValueError:
        return (1, 0.0, word)
