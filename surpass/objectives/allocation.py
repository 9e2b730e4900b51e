"""How many rollouts each prompt gets, when only groups with both outcomes teach anything."""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Float, Int

__all__ = ["allocate", "mixed_groups"]


def mixed_groups(p: Float[np.ndarray, "n"], rollouts: Int[np.ndarray, "n"]) -> float:
    """The expected number of groups with both a success and a failure,
    sum_i 1 - p_i^n_i - (1 - p_i)^n_i."""
    return float((1 - p**rollouts - (1 - p) ** rollouts).sum())


def allocate(
    p: Float[np.ndarray, "n"], total: int, least: int = 2, most: int = 32
) -> Int[np.ndarray, "n"]:
    """The numbers of rollouts, from `least` to `most` a prompt and `total` in all, with the most
    mixed groups expected: each next one goes where it adds most, which is exact, since what one
    adds
    falls with their number."""
    count = np.full(len(p), least)

    def adds(i: int) -> float:
        n, q = int(count[i]), float(p[i])
        return q**n * (1 - q) + (1 - q) ** n * q

    heap = [(-adds(i), i) for i in range(len(p))]
    heapq.heapify(heap)
    for _ in range(total - least * len(p)):
        if not heap:
            break
        _, i = heapq.heappop(heap)
        count[i] += 1
        if count[i] < most:
            heapq.heappush(heap, (-adds(i), i))
    return count
