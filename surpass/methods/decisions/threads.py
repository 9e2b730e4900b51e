"""How many threads a fit may use: one where it is small, since threads that wait for one another on
a busy machine cost more than they bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["threads_for"]

_SMALL = 50_000_000  # multiplications in a pass over the rows: some 20 ms of one core


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """One thread inside, for torch and OpenMP, where a pass over the rows takes few
    multiplications; else nothing changes."""
    if multiplications > _SMALL:
        yield
        return
    before = torch.get_num_threads()
    with threadpool_limits(1, user_api="openmp"):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
