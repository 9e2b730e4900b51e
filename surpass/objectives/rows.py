"""What a loss of the compiled executor sees: a batch of logged steps, and who stands beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError, nearest

__all__ = ["Rows", "discounted", "span_of"]


class Rows:
    """A batch of steps [B], by column: `obs, action, reward, next_obs, terminated` and whatever the
    parts of the form asked for.

    Within training, continuous actions live in [-1, 1] (the stream maps them there, the policy maps
    them back), and `terminated` is 0.0 or 1.0. In the view "n_step", `reward` is [B, n], padded
    with zeros, `span` [B] counts the steps, and `next_obs, terminated` are those at its end.
    `log` has the whole columns that the batch was drawn from, for parts that search them.
    """

    __slots__ = ("columns", "log", "sources")

    def __init__(
        self,
        columns: Mapping[str, Tensor],
        sources: tuple[str, ...] = ("log",),
        log: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.columns = dict(columns)
        self.sources = sources
        self.log = log or {}

    def __getattr__(self, name: str) -> Any:
        columns = object.__getattribute__(self, "columns")
        if name in columns:
            return columns[name]
        if name.startswith("__"):
            raise AttributeError(name)
        raise InputError(
            f"a part asks for the column {name!r}{nearest(name, list(columns))}; "
            f"the batch has {', '.join(columns)}"
        )

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return next(iter(self.columns.values())).shape[0]

    def filled(self, **columns: Tensor) -> Self:
        """A copy with some columns set."""
        return type(self)({**self.columns, **columns}, self.sources, self.log)

    def __getitem__(self, index: Any) -> Self:
        cut = {name: column[index] for name, column in self.columns.items()}
        return type(self)(cut, self.sources, self.log)


def discounted(rows: Rows, gamma: float | Tensor) -> Float[Tensor, "B"]:
    """The discounted sum of the rewards of each row: r, or sum_k gamma^k r_k of an n-step row."""
    if rows.reward.dim() == 1:
        return rows.reward
    total = rows.reward[:, -1]
    for k in range(rows.reward.shape[1] - 2, -1, -1):
        total = rows.reward[:, k] + gamma * total
    return total


def span_of(rows: Rows, gamma: float | Tensor) -> Any:
    """The factor of the value after the row: gamma, or gamma^span of an n-step row."""
    return gamma**rows.span if "span" in rows else gamma
