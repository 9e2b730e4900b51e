"""Which rows an encoder may see: those that the first stage of the main job learns from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

__all__ = ["LEARNING_SHARE", "learning_rows"]

LEARNING_SHARE = 0.30


def learning_rows(
    rows: int,
    *,
    group: Int[np.ndarray, "N"] | None = None,
    time: Float[np.ndarray, "N"] | None = None,
    seed: int = 0,
    share: float = LEARNING_SHARE,
) -> Int[np.ndarray, "n"]:
    """The rows of the first learning part: the earliest in time, or the first of a permutation of
    units drawn from `seed`.

    Units are rows, or groups, which are never split. It is the rule of
    `surpass.improve.stages.plan_stages`: with the same seed and units, nothing that is fitted on
    these rows has seen a row that is scored.
    """
    wanted = share * rows - 1e-9
    if group is None:
        generator = np.random.default_rng(seed)
        rank = generator.permutation(rows) if time is None else np.argsort(time, kind="stable")
        return np.sort(rank[: int(np.ceil(wanted))])
    _, first, label = np.unique(group, return_index=True, return_inverse=True)
    if time is None:
        place = np.random.default_rng(seed).permutation(len(first))
    else:
        start = np.full(len(first), np.inf)
        np.minimum.at(start, label, time)
        place = np.lexsort((first, start))
    ends = np.cumsum(np.bincount(label)[place])
    chosen = np.zeros(len(first), dtype=bool)
    chosen[place[: int(np.searchsorted(ends, wanted)) + 1]] = True
    return np.flatnonzero(chosen[label])
