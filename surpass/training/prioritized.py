"""A log whose rows are drawn by how wrong the nets are about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.forms import Prioritized, Source, Spaces
from surpass.objectives.rows import Rows
from surpass.parts import Schedule
from surpass.training.streams import LogStream

__all__ = ["PrioritizedLog", "priorities"]

_PIECE = 8192  # rows whose errors are computed at once


def priorities(
    error: Tensor, alpha: float, beta: float, eps: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """P(i) in proportion to (error_i + eps)^alpha, and the weights (N P(i))^-beta over the largest,
    both [N] in double precision."""
    chance = (error.double() + eps) ** alpha
    chance = chance / chance.sum()
    weight = (len(error) * chance) ** -beta
    return chance, weight / weight.max()


class PrioritizedLog(LogStream):
    """Batches as of `LogStream`, drawn by priority; those of all rows are renewed every so many
    updates.

    Raises:
        InputError: when several seeds are to be trained at once, or the log is read in windows.
    """

    def __init__(
        self,
        log: Transitions,
        source: Source,
        spaces: Spaces,
        needs: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(log, source, spaces, needs, device)
        if source.view != "rows" or "cumulative" in self.tables:
            raise InputError("priorities are of single rows, and the only way rows are drawn")
        self.rule: Prioritized = source.options["prioritize"]
        self.own = self.tables.get("weight", torch.ones(self.rows, device=device)).clone()
        even = torch.arange(1, self.rows + 1, dtype=torch.float64, device=device) / self.rows
        self.tables |= {"cumulative": even, "weight": self.own.clone()}
        self.due, self.engine = 0, None

    def bind(self, engine: Any, roles: Mapping[str, Any]) -> None:
        """Meet the nets whose errors count."""
        if engine.seeds is not None:
            raise InputError("priorities are those of one seed: train one seed at a time")
        self.engine = engine

    def before(self, updates: int) -> None:
        """Renew the priorities where that is due."""
        if self.engine is None or self.engine.step < self.due:
            return
        beta = self.rule.beta
        now = beta.at(self.engine.step) if isinstance(beta, Schedule) else float(beta)
        chance, weight = priorities(self._errors(), self.rule.alpha, now, self.rule.eps)
        self.tables["cumulative"].copy_(chance.cumsum(0))
        self.tables["weight"].copy_(weight.float() * self.own)
        self.due = self.engine.step + self.rule.every

    @torch.no_grad()
    def _errors(self) -> Tensor:
        tables: dict[str, Tensor] = self.tables
        known = {k: v for k, v in tables.items() if k not in ("cumulative", "weight")}
        found = []
        for start in range(0, self.rows, _PIECE):
            rows = Rows({k: v[start : start + _PIECE] for k, v in known.items()}, self.names)
            for i, prepare in enumerate(self.engine.form.prepare):  # type: ignore[union-attr]
                columns = self._derived(prepare, rows, ("prepare", str(i)))
                rows = columns if isinstance(columns, Rows) else rows.filled(**columns)
            found.append(self._derived(self.rule.error, rows, ("source",)))
        return torch.cat(found)

    def _derived(self, part: Any, rows: Rows, at: tuple[str, ...]) -> Any:
        return self.engine.derived(part, rows, at)  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """How rows are drawn now, and when that changes."""
        return {**{k: self.tables[k] for k in ("cumulative", "weight")}, "due": self.due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("cumulative", "weight"):
            self.tables[name].copy_(state[name])
        self.due = int(state["due"])
