"""Evidence of imitation that forgets less: one task is taught, the others are watched."""

from __future__ import annotations

from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.preference.toy_language import right, traces_of, trained
from surpass.methods.preference.proximal import psft
from surpass.methods.preference.scored import sft
from surpass.tasks.language import DigitStrings

NEW, KNOWN = DigitStrings("S", (3, 5)), DigitStrings("CR", (3, 5))
UPDATES, SMALL = 400, 16


def after(form: Any, zoo: Any, seed: int, level: float) -> tuple[float, float]:
    """Percent solved of the new task and of the known ones, where the new one first reaches a
    level, or at the end of the updates."""
    policy, found = zoo("strings-clean").policy, (0.0, 0.0)
    data = traces_of(NEW, 2000, 7 + seed)
    per = form.minibatches
    for chunk in range(10):
        policy = trained(form, policy, NEW, UPDATES // per // 10, seed + 100 * chunk, data=data)
        found = right(policy, NEW), right(policy, KNOWN)
        if found[0] >= level:
            break
    return found


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
