"""Parts of a log, chosen by what its rows or episodes are."""

from __future__ import annotations

import torch

from surpass.data.records import Transitions
from surpass.errors import InputError
from surpass.parts import Nets, part

__all__ = ["only", "successful"]


@part
def only(nets: Nets, log: Transitions, /, source: int = 0) -> Transitions:
    """The rows of one source; a log that names none is of that source as a whole.

    Raises:
        InputError: when no row is left.
    """
    if log.source is None:
        named = log.clone(recurse=False)  # type: ignore[call-arg]
        named.note, named.source = log.note, torch.full_like(log.episode, source)
        return named
    return _some(log, log.source == source, f"no row of the log is of source {source}")


@part
def successful(nets: Nets, log: Transitions, /, least: float = 0.0) -> Transitions:
    """The episodes that earned more than `least` in all.

    Raises:
        InputError: when there are none.
    """
    _, place = torch.unique_consecutive(log.episode, return_inverse=True)
    earned = torch.zeros(int(place.max()) + 1, dtype=torch.float64, device=place.device)
    earned = earned.index_add(0, place, log.reward.double())
    return _some(log, (earned > least)[place], f"no episode of the log earned more than {least:g}")


def _some(log: Transitions, kept: torch.Tensor, otherwise: str) -> Transitions:
    if not bool(kept.any()):
        raise InputError(otherwise)
    return log[kept].described(log.about)
