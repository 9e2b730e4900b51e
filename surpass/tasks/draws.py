"""Numbers drawn from rows of probabilities, in numpy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

__all__ = ["drawn"]


def drawn(
    p: Float[np.ndarray, "... K"], rng: np.random.Generator, *shape: int
) -> Int[np.ndarray, "..."]:
    """One number for every row, or an array of `shape` of them, by inverting the distribution
    function; rows need not sum to one."""
    total = p.cumsum(-1)
    u = rng.random((*p.shape[:-1], *shape))
    total = total.reshape(*p.shape[:-1], *(1 for _ in shape), p.shape[-1])
    return (u[..., None] * total[..., -1:] >= total[..., :-1]).sum(-1)
