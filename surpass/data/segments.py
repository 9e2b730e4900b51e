"""Segments of logged episodes, and scripted preferences between them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.data.records import Pairs, Sequences, Transitions
from surpass.errors import InputError

__all__ = ["compared", "segment_starts", "segments"]


def segment_starts(log: Transitions, length: int) -> Int[Tensor, "S"]:
    """The rows from which `length` rows of one episode follow.

    Raises:
        InputError: when no episode is as long.
    """
    rows = torch.arange(max(len(log) - length + 1, 0))
    found = rows[log.episode[rows] == log.episode[rows + length - 1]]
    if len(found) == 0:
        raise InputError(f"no episode of the log has {length} rows")
    return found


def segments(log: Transitions, starts: Int[Tensor, "B"], length: int) -> Sequences:
    """The segments of `length` rows from the given rows on, [B, T]."""
    rows = starts[:, None] + torch.arange(length)
    return Sequences(
        action=log.action[rows], mask=torch.ones(rows.shape), reward=log.reward[rows],
        obs=log.obs[rows], batch_size=[len(starts)],  # type: ignore[call-arg]
    )  # fmt: skip


def compared(
    log: Transitions, worth: Float[Tensor, "N"], count: int, length: int = 20, seed: int = 0,
    flip: float = 0.0,
) -> Pairs:  # fmt: skip
    """Scripted preferences: of two random segments, the one whose rows' `worth` sums higher.

    Args:
        count: pairs drawn; those of equal worth are dropped.
        flip: the share of pairs that are told the wrong way round.

    Raises:
        InputError: when no episode is long enough, or no two segments differ in worth.
    """
    g = torch.Generator().manual_seed(seed)
    starts = segment_starts(log, length)
    drawn = starts[torch.randint(len(starts), (2, count), generator=g)]
    total = worth[drawn[..., None] + torch.arange(length)].sum(-1)
    differ = total[0] != total[1]
    if not differ.any():
        raise InputError("all segments are worth the same: nothing is preferred to anything")
    first = (total[0] > total[1]) ^ (torch.rand(count, generator=g) < flip)
    chosen = torch.where(first, drawn[0], drawn[1])[differ]
    rejected = torch.where(first, drawn[1], drawn[0])[differ]
    return Pairs(
        chosen=segments(log, chosen, length), rejected=segments(log, rejected, length),
        batch_size=[len(chosen)],  # type: ignore[call-arg]
    )  # fmt: skip
