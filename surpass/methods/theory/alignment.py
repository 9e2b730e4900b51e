"""Whether a fixed point of temporal differences can be trusted with these features and this log."""

from __future__ import annotations

from dataclasses import dataclass

from surpass.forms import Study
from surpass.objectives.alignment import Moments, alignment, concentrability, direct, statistical
from surpass.parts import part
from surpass.registry import system

__all__ = ["Trust", "factors", "realizable_td"]


@dataclass(frozen=True)
class Trust:
    """What an estimate may be off by, and why.

    Attributes:
        statistics: eps, what the number of rows leaves open.
        concentrability: how much of the target policy's errors the log can see (its square root
            multiplies).
        alignment: kappa, how much of an error the class can see: 1 where it is closed under the
            Bellman operator (it divides).
        bound: C^(1/2) eps / (kappa (1 - gamma)).
        direct: the same where the worst direction is replaced by the one that matters; ours, not
            of the paper.
    """

    statistics: float
    concentrability: float
    alignment: float
    bound: float
    direct: float

    @property
    def misalignment(self) -> float:
        """(1 - kappa^2)^(1/2)."""
        return (1 - self.alignment**2) ** 0.5

    def __str__(self) -> str:
        weak = min(
            (1 / max(self.concentrability, 1e-300) ** 0.5, "coverage: log more of what it does"),
            (self.alignment, "the class: add features that hold what follows the ones it has"),
        )[1]
        return (
            f"off by up to {self.bound:.3g} (along the direction that matters {self.direct:.3g}): "
            f"statistics {self.statistics:.3g}, concentrability "
            f"{self.concentrability:.3g}, alignment {self.alignment:.3g} of 1\nweakest: {weak}"
        )


@part
def factors(
    seen: Moments, /, rows: int = 1000, most: float = 1.0, gamma: float = 0.99,
    delta: float = 0.05, c: float = 1.0,
) -> Trust:  # fmt: skip
    """The three factors of the error of a fixed point from so many rows, and their product."""
    eps = statistical(len(seen.goal), rows, most, delta, c)
    kappa, c_pi = alignment(seen), concentrability(seen)
    bound = c_pi**0.5 * eps / (max(kappa, 1e-300) * (1 - gamma))
    return Trust(eps, c_pi, kappa, bound, direct(seen) ** 0.5 * eps / (1 - gamma))


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
