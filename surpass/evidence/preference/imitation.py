"""Evidence of imitation that forgets less and is not misled: one task is taught, others are
watched."""

from __future__ import annotations

from typing import Any

import torch

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.preference.toy_language import traces_of, trained
from surpass.methods.preference.proximal import psft
from surpass.methods.preference.scored import sft
from surpass.methods.preference.token_rollouts import otr
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
    note="Both forget most of what was known: where four in five of the new answers are right, 21 "
    "percent of the old is left with clipped tokens and 25 without (4 less, 0.3 to 8.1); "
    "probably because clipped tokens slow what is learned while forgetting goes on. One start"
    " model stands for all seeds.",
)  # fmt: skip
def psft_evidence(seed: int, zoo: Any) -> Result:
    """Also: the new task."""
    ours = max((after(psft(lr=r, batch=8 * SMALL), zoo, seed, 80.0) for r in (3e-4, 1e-3)),
               key=lambda found: found[1] if found[0] >= 70 else -1.0)  # fmt: skip
    theirs = max((after(sft(lr=r, batch=SMALL), zoo, seed, 80.0) for r in (3e-4, 1e-3)),
                 key=lambda found: found[1] if found[0] >= 70 else -1.0)  # fmt: skip
    return Result(ours[1], theirs[1], also={
        "percent solved, the new task": (ours[0], theirs[0], at_least(-2.0))})  # fmt: skip


# ------------------------------------------------------------------------------------------ otr

TAUGHT, LEFT = DigitStrings("R", (3, 5)), DigitStrings("C", (3, 5))
WRONG, RATE = 0.25, 1e-3


def doubtful(n: int, seed: int, share: float = WRONG) -> list[dict[str, Any]]:
    """Reversed strings, of which a share of the answers is random digits of the right number."""
    generator = torch.Generator().manual_seed(seed)
    rows = traces_of(TAUGHT, n, seed)
    for row in rows:
        if float(torch.rand(1, generator=generator)) < share:
            digits = len(row["completion"]) - 1
            random = torch.randint(10, (digits,), generator=generator).tolist()
            row["completion"] = [*random, row["completion"][-1]]
    return rows


def taught(form: Any, zoo: Any, seed: int, task: Any = None) -> dict[str, float]:
    """Percent solved of what is taught, sampled and by the likeliest tokens, and of what is not,
    after 160 updates on doubtful demonstrations (or on right ones of another task)."""
    data = doubtful(2000, 7 + seed) if task is None else traces_of(task, 2000, 7 + seed)
    bed = zoo("strings-reference" if task is None else "strings-clean")
    policy = trained(form, bed.policy, task or TAUGHT, 160, seed, data=data)
    return {
        "sampled": solved(policy, task or TAUGHT), "left": solved(policy, LEFT),
        "likeliest": 100 * accuracy(policy, task or TAUGHT, temperature=0.0, seed=12345),
    }  # fmt: skip


@evidence(
    "otr",
    claim="where a fourth of the demonstrations is wrong, tokens that the policy draws and the "
    "demonstration rewards end 3 points above supervised training, on what is taught and on what "
    "is not",
    baseline="supervised training on the same demonstrations, the same updates and rate",
    metric="percent of held-out prompts solved, one sampled answer each",
    bar=at_least(3.0), seeds=5, minutes=2.0,
    setting="DIGIT-STRINGS: a sloppy model is taught to reverse by 2,000 answers, a fourth of them "
    "random digits; 160 updates of 32 at the rate 1e-3.",
)  # fmt: skip
def otr_evidence(seed: int, zoo: Any) -> Result:
    """Also: with the likeliest tokens; against the expectation at the same temperature; and on a
    task that the model cannot do at all."""
    ours, theirs, mean = (
        taught(form, zoo, seed) for form in (otr(lr=RATE), sft(lr=RATE), otr(count=0, lr=RATE))
    )
    cold = [taught(form, zoo, seed, NEW)["sampled"]
            for form in (otr(lr=RATE), sft(lr=RATE))]  # fmt: skip
    return Result(
        ours["sampled"], theirs["sampled"],
        also={"percent solved, what is not taught": (ours["left"], theirs["left"], at_least(3.0)),
              "percent solved, the likeliest tokens": (
                  ours["likeliest"], theirs["likeliest"], at_least(-1.0)),
              "percent solved, against the expectation": (ours["sampled"], mean["sampled"]),
              "percent solved, taught what it cannot do": (cold[0], cold[1])},
    )  # fmt: skip
