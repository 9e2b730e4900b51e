"""When a stage has done enough: what watches its numbers, for `Stage(until=Monitor(...))`.

A watch sees what a run logs at every mark, a dict of numbers with `step`, and gives a `Reading`;
its alarm ends the stage.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from surpass.errors import InputError, nearest
from surpass.forms import Reading
from surpass.parts import State, part

__all__ = ["plateau", "reached"]

Numbers = Mapping[str, float]


def _metric(numbers: Numbers, name: str) -> float | None:
    """The number of that name; None where this mark has none, as evaluations are not at each."""
    if name in numbers:
        return numbers[name]
    if name.startswith(("evaluation.", "episode.")):
        return None
    raise InputError(
        f"a monitor watches {name!r}{nearest(name, list(numbers))}; the run logs "
        f"{', '.join(numbers)}"
    )


@part
def reached(numbers: Numbers, /, metric: str, value: float, above: bool = True) -> Reading:
    """An alarm when a number is at least (or, with `above` false, at most) `value`."""
    now = _metric(numbers, metric)
    if now is None:
        return Reading(float("nan"), value, False)
    return Reading(now, value, now >= value if above else now <= value, int(numbers["step"]))


@part(state=lambda: {"best": torch.tensor(torch.inf), "marks": torch.zeros(())})
def plateau(
    state: State, numbers: Numbers, /, metric: str, patience: int = 5, least: float = 0.0,
    rising: bool = False,
) -> tuple[Reading, State]:  # fmt: skip
    """An alarm when a number has not fallen (or, with `rising`, risen) by more than `least` below
    its best for `patience` marks: early stopping."""
    now = _metric(numbers, metric)
    if now is None:
        return Reading(float("nan"), float(patience), False), state
    value = -now if rising else now
    better = value < float(state["best"]) - least
    best = torch.tensor(value) if better else state["best"]
    marks = torch.zeros(()) if better else state["marks"] + 1
    alarm = float(marks) >= patience
    reading = Reading(float(marks), float(patience), alarm, int(numbers["step"]),
                      f"{metric} has not improved for {int(marks)} marks")  # fmt: skip
    return reading, {"best": best, "marks": marks}
