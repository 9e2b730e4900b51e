"""Matrices of low rank from a few of their rows and columns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surpass.errors import InputError

__all__ = ["from_anchors"]


def from_anchors(
    columns: Float[np.ndarray, "S k"], rows: Float[np.ndarray, "l A"],
    block: Float[np.ndarray, "l k"], rank: int, tol: float = 1e-10,
) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """Q = columns block^+ rows, where `block` is what the anchor rows and columns share.

    The pseudo-inverse keeps the `rank` largest singular values, of these the ones above `tol` times
    the largest. Exact when Q has that rank and the block has it too; an error of eps in what was
    observed grows with the condition of the block. "Sample Efficient Reinforcement Learning via
    Low-Rank Matrix Estimation" (2020).

    Raises:
        InputError: for a rank below 1.
    """
    if rank < 1:
        raise InputError(f"a rank is at least 1, got {rank}")
    u, s, vt = np.linalg.svd(block, full_matrices=False)
    kept = max(min(rank, int((s > tol * s[0]).sum())), 1)
    return columns @ (vt[:kept].T / np.maximum(s[:kept], 1e-300)) @ (u[:, :kept].T @ rows)
