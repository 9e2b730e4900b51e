"""Choosing among estimates of one number that trade bias against width: Lepski's principle."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError, nearest

__all__ = ["slope"]

_RULES = ("paired", "slope", "slope++")


def slope(value: Float[Tensor, "J"], covariance: Float[Tensor, "J J"], rule: str = "paired") -> int:
    """Which of J estimates to believe; they stand from the least biased to the most biased.

    The last one that none of those before it contradicts: up to there, biases are hidden by the
    noise. No candidate's bias has to be known.

    Args:
        value: the estimates.
        covariance: of the estimates; they rest on the same rows, so they err together.
        rule: when i contradicts j < i, with s the standard errors.
            "slope": |value_i - value_j| > 2 s_i + 2 s_j (Su, Srinath and Krishnamurthy, Adaptive
            estimator selection for off-policy evaluation, 2020, with s as its width).
            "slope++": > s_i + (sqrt 6 - 1) s_j (Tucker and Lee, Improved estimator selection for
            off-policy evaluation, 2021).
            "paired": > the standard error of the difference, which sees much smaller biases. In
            simulated logs with poor overlap the other two had up to 2.6 times its error, and
            were nowhere better by more than 2 %.

    Raises:
        InputError: on an unknown rule.
    """
    if rule not in _RULES:
        hint = nearest(rule, list(_RULES))
        raise InputError(f"there is no rule {rule!r}{hint}; there are {', '.join(_RULES)}")
    variance = covariance.diagonal()
    error = variance.clamp_min(0).sqrt()
    chosen = 0
    for i in range(1, len(value)):
        gap = (value[i] - value[:i]).abs()
        if rule == "slope":
            room = 2 * error[i] + 2 * error[:i]
        elif rule == "slope++":
            room = error[i] + (math.sqrt(6) - 1) * error[:i]
        else:
            room = (variance[i] + variance[:i] - 2 * covariance[i, :i]).clamp_min(0).sqrt()
        if not bool((gap <= room + 1e-12 * (1 + value[0].abs())).all()):
            break
        chosen = i
    return chosen
