"""One entry point: `open_log(name or path or table)`; what it gives can be read whole or in a
stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from surpass.data.records import Decisions, Transitions
from surpass.data.truth import Truth
from surpass.errors import InputError

__all__ = ["HeldLog", "Log", "open_log"]


@runtime_checkable
class Log(Protocol):
    """A decision log that can be read. `truth` is known for logs that were made from
    classification data."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def truth(self) -> Truth | None: ...
    def read(self) -> Decisions: ...
    def batches(self, rows: int = 65_536) -> Iterator[Decisions]: ...


@dataclass(frozen=True)
class HeldLog:
    """A log that is in memory already."""

    name: str
    held: Decisions
    truth: Truth | None = None
    columns: Any = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.held.batch_size[0]

    def __len__(self) -> int:
        return self.rows

    def read(self) -> Decisions:
        """The decisions."""
        return self.held

    def batches(self, rows: int = 65_536) -> Iterator[Decisions]:
        """The decisions, `rows` at a time."""
        for start in range(0, self.rows, rows):
            yield self.held[start : start + rows]


def open_log(data: Any, **options: Any) -> Log:
    """A log, from whatever holds it: of decisions, or of episodes (`read()` gives `Transitions`).

    Args:
        data: a file or folder; a named source (`open-bandit:random/men`, `digits`,
            `digits:rows=5000,exploration=0.2`); a DataFrame, a pyarrow Table or a dict of
            columns; Open Bandit Pipeline's feedback dict; `Decisions`; `Transitions`, or episodes
            in a file (HDF5, npz, Parquet, Minari).
        options: the columns' roles and the other options of `surpass.data.tables.open_table`.

    Raises:
        InputError: when it cannot be read.
    """
    from surpass.data.sources import is_source, open_source
    from surpass.data.tables import from_table, open_table
    from surpass.data.trajectories import is_trajectories, open_trajectories

    options = {k: v for k, v in options.items() if v is not None}
    if isinstance(data, Decisions):
        return HeldLog(data.about.name or "decisions", data)
    if isinstance(data, Transitions):
        from surpass.data.trajectories import TrajectoryLog

        return TrajectoryLog(data.about.name or "episodes", data)  # type: ignore[return-value]
    if isinstance(data, Log):
        return data
    if is_trajectories(data):
        given = next((k for k in options if k != "seed"), None)
        if given is not None:
            raise InputError(
                f"{given}=... does not fit {data}, a log of episodes, whose columns are known by "
                "their names; leave it out"
            )
        return open_trajectories(data)  # type: ignore[return-value]
    if isinstance(data, str | Path):
        if is_source(str(data)) and not Path(data).exists():
            return open_source(str(data), **options)
        return open_table(data, **options)
    if isinstance(data, Mapping) and {"action", "reward", "n_actions"} <= set(data):
        from surpass.data.obp import from_obp, truth_of_obp

        if options:
            raise InputError(
                f"{next(iter(options))}=... does not fit Open Bandit Pipeline's feedback, whose "
                "columns are known; leave it out"
            )
        return HeldLog("Open Bandit Pipeline feedback", from_obp(data), truth_of_obp(data))
    return from_table(data, **options)
