"""Whether a fixed point of temporal differences can be trusted with these features and this log."""

from __future__ import annotations

from surpass.forms import Study
from surpass.objectives.alignment import factors
from surpass.registry import system

__all__ = ["realizable_td"]


@system("realizable-td")
def realizable_td(
    rows: int = 1000, most: float = 1.0, gamma: float = 0.99, delta: float = 0.05, c: float = 1.0
) -> Study:
    """Three factors say when to trust LSTD or fitted evaluation with a class that holds the value:
    rows, coverage, and how closed the class is under the Bellman operator.

    `measure` takes `surpass.objectives.alignment.Moments`: of tables, or of rows with two
    independent next states each.

    Args:
        rows: of the log. most: the largest value, in units of the reward. gamma: the discount.
        delta: of the statement. c: the constant, which theory leaves open: fit it where truth is
            known.
    """
    return Study(factors(rows, most, gamma, delta, c))
