"""Axes: from numbers to percent of a picture's width, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from surpass.improve.wording import decimals, number

__all__ = ["Scale", "span"]


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis from `low` to `high`."""

    low: float
    high: float
    log: bool = False

    def at(self, x: float) -> float:
        """Where `x` lies, in percent of the width, cut to [0, 100]."""
        low, high, x = (
            (math.log(self.low), math.log(self.high), math.log(max(x, self.low)))
            if self.log
            else (self.low, self.high, x)
        )
        return min(100.0, max(0.0, 100 * (x - low) / (high - low)))

    def holds(self, x: float) -> bool:
        return self.low <= x <= self.high

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Round numbers on the axis, at most about `most`, with their text."""
        values = self._powers(most) if self.log else self._steps(most)
        if self.log:
            return [(v, compact(v)) for v in values]
        places = decimals_of_steps(values)
        return [(v, number(v, places)) for v in values]

    def _steps(self, most: int) -> list[float]:
        rough = (self.high - self.low) / max(1, most - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def _powers(self, most: int) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for marks in ((1, 2, 5), (1, 3), (1,)):
            values = [m * 10.0**k for k in range(low, high + 1) for m in marks]
            values = [v for v in values if self.holds(v)]
            if len(values) <= most:
                return values
        return values[:: math.ceil(len(values) / most)]


def decimals_of_steps(values: list[float]) -> int:
    """Decimals that tell neighboring ticks apart."""
    if len(values) < 2:
        return decimals(*values)
    step = abs(values[1] - values[0])
    return next((k for k in range(9) if abs(step * 10**k - round(step * 10**k)) < 1e-6), 8)


def compact(value: float) -> str:
    """`20,000` as `20k`, `3,000,000` as `3M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def span(
    values: Iterable[float | None], *, log: bool = False, margin: float = 0.06, most: float = 0.0
) -> Scale:
    """An axis that holds all finite `values` with some room on both sides; positive ones only on a
    logarithmic axis."""
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    known = [v for v in known if v > 0] if log else known
    if not known:
        return Scale(1.0, 10.0, True) if log else Scale(0.0, 1.0)
    low, high = min(known), max(known)
    if log:
        room = max((high / low) ** margin, 1.25)
        return Scale(low / room, high * room, True)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    return Scale(low, min(high, most) if most else high)
