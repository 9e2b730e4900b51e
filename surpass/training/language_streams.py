"""Batches of language: rows of a fixed log, and fresh answers to prompts.

A stream gives `Batch`es, says whether its rows are fixed, and can be stopped and carried on: its
state is a few numbers, since the order of the rows follows from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from surpass.data.language import LanguageLog
from surpass.data.records import Pairs, Sequences
from surpass.errors import InputError
from surpass.policies.sharding import rank, world

__all__ = ["Batch", "RowStream"]


@dataclass
class Batch:
    """What one update learns from.

    Attributes:
        name: what errors call it.
        rows: the rows of the log, in order, where there is one.
        notes: what the stream measured: reward, length, share of groups with signal.
        exact: whether `behavior_logp` is what the policy's own forward pass would give.
        sources: names of the sources that `Sequences.source` numbers.
    """

    name: str
    sequences: Any = None
    pairs: Any = None
    rows: list[int] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)
    exact: bool = False
    sources: tuple[str, ...] = ("own",)


class RowStream:
    """Rows of a log in a new random order every epoch.

    Args:
        kind: "pairs", or "sequences" for scored answers and demonstrations.
        total: how many batches will be drawn at most, where known.
        grouped: keep answers to one prompt together: a batch then is as many whole groups as fit.

    Raises:
        InputError: when the data have no rows, or a group is larger than a batch.
    """

    fixed = True

    def __init__(
        self, log: LanguageLog, size: int, *, kind: str, seed: int = 0, total: int | None = None,
        device: Any = "cpu", grouped: bool = False,
    ) -> None:  # fmt: skip
        if not len(log):
            raise InputError("the data have no rows")
        self.log, self.kind, self.seed, self.total = log, kind, seed, total
        self.size = min(size, len(log))
        self.groups = _groups_of(log, self.size) if grouped else [[i] for i in range(len(log))]
        most = max(map(len, self.groups))
        self.together = max(1, self.size // most)  # groups in a batch
        if self.together % world():
            fits = most * world()
            raise InputError(
                f"a batch of {self.size} rows does not divide over {world()} processes; give "
                f"batch={fits * max(1, self.size // fits)}"
            )
        self.device = device
        self.drawn = 0

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch; rows that do not fill one wait for the next order."""
        return max(1, len(self.groups) // self.together)

    def rows_at(self, number: int) -> list[int]:
        """The rows of a batch, by its number from the start."""
        return [row for i in self._groups_at(number) for row in self.groups[i]]

    def _groups_at(self, number: int) -> list[int]:
        epoch, place = divmod(number, self.per_epoch)
        if getattr(self, "_epoch", None) != epoch:
            order = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = torch.randperm(len(self.groups), generator=order).tolist()
            self._epoch = epoch
        return self._order[place * self.together : (place + 1) * self.together]

    def coming(self) -> list[int]:
        """Every row that will still be drawn."""
        if self.total is None or self.total >= 2 * self.per_epoch:
            return list(range(len(self.log)))
        return sorted({i for n in range(self.drawn, self.total) for i in self.own_rows(n)})

    def own_rows(self, number: int) -> list[int]:
        """The rows of a batch that this process takes, whole groups where they are kept
        together."""
        own = self._groups_at(number)[rank() :: world()]
        return [row for i in own for row in self.groups[i]]

    def side(self, name: str, rows: list[int]) -> Sequences:
        """One side of some rows."""
        return self.log.side(name, rows).to(self.device)

    def next(self) -> Batch:
        """The next batch, or this process's share of it."""
        rows = self.own_rows(self.drawn)
        self.drawn += 1
        name = f"rows {', '.join(str(i + 1) for i in rows[:8])}{' ...' if len(rows) > 8 else ''}"
        if self.kind == "pairs":
            pairs: Pairs = self.log.pairs(rows).to(self.device)
            return Batch(name, pairs=pairs, rows=rows)
        return Batch(name, sequences=self.log.sequences(rows).to(self.device), rows=rows)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"drawn": self.drawn, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Carry on from there."""
        self.drawn, self.seed = int(state["drawn"]), int(state["seed"])
        self._epoch = None


def _groups_of(log: LanguageLog, size: int) -> list[list[int]]:
    """The rows of each prompt."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(log.prompts):
        found.setdefault(prompt, []).append(row)
    most = max(map(len, found.values()))
    if most > size:
        raise InputError(
            f"one prompt has {most} answers, more than the batch of {size} rows in which they are "
            f"compared; give batch={most} or more"
        )
    return list(found.values())
