"""Numbers that change with the training step: any hyperparameter may be one."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Number", "Schedule", "constant", "cosine", "exponential", "linear", "warmup"]


@dataclass(frozen=True)
class Schedule:
    """A number that changes with the training step: `shape` names the curve from `start` to `end`
    over `steps`, which begins `after` so many and moves once in `every` so many (it is then where
    it would be at the end of them). An "exponential" curve never gets there: `steps` bring it e
    times nearer."""

    shape: str
    start: float
    end: float
    steps: float
    after: int = 0
    every: int = 1

    def at(self, step: int) -> float:
        """Its value at a training step (counted from 0)."""
        moved = math.ceil(max(step - self.after, 0) / self.every) * self.every
        if self.shape == "exponential":
            return self.end + (self.start - self.end) * math.exp(-moved / self.steps)
        progress = min(max(moved / max(self.steps, 1), 0.0), 1.0)
        if self.shape == "cosine":
            progress = 0.5 - 0.5 * math.cos(math.pi * progress)
        return self.start + (self.end - self.start) * progress

    def __repr__(self) -> str:
        more = f", after={self.after}" if self.after else ""
        more += f", every={self.every}" if self.every > 1 else ""
        return f"{self.shape}({self.start:g}, {self.end:g}, steps={self.steps}{more})"


def linear(start: float, end: float, *, steps: int, after: int = 0, every: int = 1) -> Schedule:
    """A straight line from `start` to `end` over `steps` training steps, constant before (`after`)
    and after; in stairs of `every` steps."""
    return Schedule("linear", start, end, steps, after, every)


def cosine(start: float, end: float, *, steps: int) -> Schedule:
    """Half a cosine wave from `start` to `end` over `steps` training steps, constant after."""
    return Schedule("cosine", start, end, steps)


def exponential(start: float, end: float, *, steps: float) -> Schedule:
    """end + (start - end) exp(-step / steps)."""
    return Schedule("exponential", start, end, steps)


def warmup(value: float, *, steps: int) -> Schedule:
    """From 0 to `value` over `steps` training steps, constant after."""
    return Schedule("linear", 0.0, value, steps)


def constant(value: float) -> Schedule:
    """A schedule that does not move."""
    return Schedule("linear", value, value, 1)


Number = float | int | Schedule
