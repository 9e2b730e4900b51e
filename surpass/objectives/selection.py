"""Choosing among estimates of one number that trade bias against width: Lepski's principle."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError, nearest

__all__ = ["slope"]

_FACTORS = {"slope": (2.0, 2.0), "slope++": (1.0, math.sqrt(6.0) - 1.0)}


def slope(value: Float[Tensor, "J"], width: Float[Tensor, "J"], rule: str = "slope") -> int:
    """Which of J estimates to believe; they stand from the least biased to the most biased.

    The last one whose interval still meets those of all before it: biases are then hidden by the
    widths. No candidate's bias has to be known.

    Args:
        value: the estimates.
        width: half widths of their confidence intervals.
        rule: "slope": intervals value +- 2 width must have a common point (Su, Srinath and
            Krishnamurthy, Adaptive estimator selection for off-policy evaluation, 2020).
            "slope++": |value_i - value_j| <= width_i + (sqrt 6 - 1) width_j for all j < i (Tucker
            and Lee, Improved estimator selection for off-policy evaluation, 2021).

    Raises:
        InputError: on an unknown rule.
    """
    if rule not in _FACTORS:
        raise InputError(f"there is no rule {rule!r}{nearest(rule, list(_FACTORS))}")
    mine, theirs = _FACTORS[rule]
    chosen = 0
    for i in range(1, len(value)):
        gap = (value[i] - value[:i]).abs()
        if not bool((gap <= mine * width[i] + theirs * width[:i]).all()):
            break
        chosen = i
    return chosen
