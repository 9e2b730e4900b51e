"""Evidence of imitation that forgets less: one task is taught, the others are watched."""

from __future__ import annotations

from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.preference.toy_language import traces_of, trained
from surpass.methods.preference.proximal import psft
from surpass.methods.preference.scored import sft
from surpass.tasks.language import DigitStrings
from surpass.zoo.language import accuracy

NEW, KNOWN = DigitStrings("S", (3, 5)), DigitStrings("CR", (3, 5))
UPDATES, SMALL, LOOK = 320, 16, 8


def after(form: Any, zoo: Any, seed: int, level: float) -> tuple[float, float]:
    """Percent solved of the new task and of the known ones, where the new one first reaches a
    level, or at the end of the updates."""
    data = traces_of(NEW, 2000, 7 + seed)
    found: list[tuple[float, float]] = []
    per = form.minibatches

    def look(step: int, notes: Any, policy: Any) -> None:
        if step * per % LOOK or (found and found[-1][0] >= level):
            return
        policy.model.eval()
        found.append((solved(policy, NEW), solved(policy, KNOWN)))
        policy.model.train()

    trained(form, zoo("strings-clean").policy, NEW, UPDATES // per, seed, data=data, callback=look)
    return found[-1]


def solved(policy: Any, task: DigitStrings) -> float:
    """Percent of right answers to 512 held-out prompts, one each."""
    return 100 * accuracy(policy, task, seed=12345)


@evidence(
    "psft",
    claim="at the same accuracy on what is taught, tokens that stop counting once they rose keep 5 "
    "points more of what was known before",
    baseline="supervised training with as many steps of the same size; both stop where the new "
    "task is solved at 80 percent; the better of two rates for each",
    metric="percent of held-out prompts of the known tasks solved",
    bar=at_least(5.0), seeds=5, minutes=5.0,
    setting="DIGIT-STRINGS: a model that copies and reverses is taught to sort; 2,000 right "
    "traces, steps of 16, snapshots every 8 steps.",
)  # fmt: skip
def psft_evidence(seed: int, zoo: Any) -> Result:
    """Also: the new task."""
    ours = max((after(psft(lr=r, batch=8 * SMALL), zoo, seed, 80.0) for r in (3e-4, 1e-3)),
               key=lambda found: found[1] if found[0] >= 70 else -1.0)  # fmt: skip
    theirs = max((after(sft(lr=r, batch=SMALL), zoo, seed, 80.0) for r in (3e-4, 1e-3)),
                 key=lambda found: found[1] if found[0] >= 70 else -1.0)  # fmt: skip
    return Result(ours[1], theirs[1], also={
        "percent solved, the new task": (ours[0], theirs[0], at_least(-2.0))})  # fmt: skip
