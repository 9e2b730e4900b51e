"""What it costs to decide otherwise than last time."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from surpass.errors import InputError

__all__ = ["Form", "adjustment", "switching_backup"]

Form = Literal["none", "linear", "quadratic", "fixed"]


def adjustment(form: Form, c: float, level: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A A"]:
    """The cost [before, now] of going from one level to another: c |h - b|, c (h - b)^2, or c where
    they differ.

    Raises:
        InputError: for another form, or a negative c.
    """
    if c < 0:
        raise InputError(f"a cost of adjustment is not negative, got {c}")
    apart = np.abs(level[None, :] - level[:, None])
    costs = {"none": 0 * apart, "linear": apart, "quadratic": apart**2, "fixed": 1.0 * (apart > 0)}
    if form not in costs:
        raise InputError(f"an adjustment is one of {', '.join(costs)}, not {form!r}")
    return c * costs[form]


def switching_backup(
    reward: Float[np.ndarray, "S A"], P: Float[np.ndarray, "S A S"],
    cost: Float[np.ndarray, "A A"], v: Float[np.ndarray, "S A"], gamma: float = 1.0,
) -> Float[np.ndarray, "S A A"]:  # fmt: skip
    """Q(s, before, now) = reward(s, now) - cost(before, now) + gamma E[v(s', now) | s, now]: the
    state holds what was done last, and what is done now is what comes next."""
    ahead = np.einsum("sat,ta->sa", P, v)
    return (reward + gamma * ahead)[:, None, :] - cost[None]
