"""Training runs on MODSUM-LM as curves: what was solved, and what it had cost so far."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from surpass.training.module_run import train_language
from surpass.zoo.language import accuracy

__all__ = ["Curve", "curve", "solved"]


@dataclass
class Curve:
    """Percent of held-out prompts solved after so many batches, and what each batch noted."""

    steps: list[int] = field(default_factory=list)
    solved: list[float] = field(default_factory=list)
    notes: list[dict[str, float]] = field(default_factory=list)
    policy: Any = None

    @property
    def last(self) -> float:
        """At the end."""
        return self.solved[-1]

    @property
    def fall(self) -> float:
        """From the best to the end, in points."""
        return max(self.solved) - self.last

    def first(self, level: float) -> float:
        """The batch at which a level was reached, linear between evaluations; one more interval
        than there were where it never was."""
        before, at = 0.0, 0
        for step, value in zip(self.steps, self.solved, strict=True):
            if value >= level:
                share = (level - before) / max(value - before, 1e-9) if at else 1.0
                return at + share * (step - at)
            before, at = value, step
        return float(self.steps[-1] + self.steps[0])

    def after(self, answers: float) -> float:
        """What was solved once so many answers had been drawn, linear between evaluations."""
        drawn = [self.notes[step - 1]["answers"] for step in self.steps]
        return float(np.interp(answers, drawn, self.solved))

    def mean(self, name: str, start: int = 0) -> float:
        """The mean of a note over the batches from `start` on."""
        held = [n[name] for n in self.notes[start:]]
        return sum(held) / len(held)


def solved(policy: Any, task: Any, each: int = 2) -> float:
    """Percent of right answers to 512 held-out prompts."""
    return 100 * accuracy(policy, task, each=each, seed=12345)


def curve(
    form: Any, zoo: Any, seed: int, steps: int, every: int = 5, task: Any = None,
    judged: Any = None, bed: str = "modsum-reference", **more: Any,
) -> Curve:  # fmt: skip
    """Train a copy of a model (the sloppy one of MODSUM-LM by default) on a task (by default its
    own) and evaluate it on `judged` (by default the same) every so many batches; `more` is for
    `train_language`."""
    start = zoo(bed)
    policy, made = copy.deepcopy(start.policy), Curve()
    where = task or start.task

    def noted(step: int, notes: dict[str, float], now: Any) -> None:
        made.notes.append(notes)
        if step % every == 0 or step == steps:
            now.model.eval()
            made.steps.append(step)
            made.solved.append(solved(now, judged or where))
            now.model.train()

    train_language(form, model=policy, task=where, steps=steps, seed=seed, callback=noted, **more)
    made.policy = policy
    return made
