"""Logs as they were recorded: records, readers, writers, encoders and named sources."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surpass.data.columns import Columns as Columns
    from surpass.data.encoders import Encoder as Encoder
    from surpass.data.logs import HeldLog as HeldLog
    from surpass.data.logs import Log as Log
    from surpass.data.logs import open_log as open_log
    from surpass.data.obp import from_obp as from_obp
    from surpass.data.records import About as About
    from surpass.data.records import Decisions as Decisions
    from surpass.data.records import Pairs as Pairs
    from surpass.data.records import Sequences as Sequences
    from surpass.data.records import Transitions as Transitions
    from surpass.data.sources import SOURCES as SOURCES
    from surpass.data.tables import TableLog as TableLog
    from surpass.data.tables import from_table as from_table
    from surpass.data.tables import open_table as open_table
    from surpass.data.trajectories import open_trajectories as open_trajectories
    from surpass.data.trajectories import write_trajectories as write_trajectories
    from surpass.data.truth import Truth as Truth
    from surpass.data.truth import from_classification as from_classification
    from surpass.data.writers import to_table as to_table
    from surpass.data.writers import write_log as write_log
    from surpass.data.writers import write_rows as write_rows

_HOMES = {
    "columns": ("Columns",),
    "encoders": ("Encoder",),
    "logs": ("HeldLog", "Log", "open_log"),
    "obp": ("from_obp",),
    "records": ("About", "Decisions", "Pairs", "Sequences", "Transitions"),
    "sources": ("SOURCES",),
    "tables": ("TableLog", "from_table", "open_table"),
    "trajectories": ("open_trajectories", "write_trajectories"),
    "truth": ("Truth", "from_classification"),
    "writers": ("to_table", "write_log", "write_rows"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = list(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"surpass.data.{_HOME_OF[name]}"), name)
    raise AttributeError(f"surpass.data has no {name!r}")
