"""Evidence of answers drawn behind solved examples, where a prompt does not say what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.rlvr.curves import curve
from surpass.forms import rollouts
from surpass.methods.rlvr.in_context import icpo
from surpass.objectives.divergence import k3
from surpass.objectives.trust import dual_clip
from surpass.tasks.unnamed import UnnamedStrings

TASK, BATCHES, PROMPTS = UnnamedStrings(), 12, 16
SIZES: dict[str, Any] = {"horizon": TASK.response_length, "lr": 3e-4, "over": BATCHES,
                         "batch": 7 * PROMPTS}  # fmt: skip


def bare(group: int) -> Any:
    """The same form without steered answers, which is GRPO, with `group` answers to each prompt."""
    form = icpo(bonus=0.0, **SIZES)
    return replace(form, trust=dual_clip() + 1e-3 * k3(), signals=(),
                   source=rollouts(group * PROMPTS, TASK.response_length, group))  # fmt: skip


@evidence(
    "icpo",
    claim="where a model guesses what is asked for and knows it once it sees an example, one shown "
    "answer in each group of eight solves 10 points more of the bare prompts than GRPO with "
    "sixteen",
    baseline="the same form without shown answers, sixteen answers to each prompt; the same "
    "prompts a batch and rate",
    metric="percent of held-out bare prompts solved after 12 batches of 16 prompts",
    bar=at_least(10.0), seeds=5, minutes=3.0,
    setting="Strings of 4 digits to be reversed; the model copies 99 of 100 where it is shown "
    "nothing, and does what an example shows; rate 3e-4.",
)  # fmt: skip
def icpo_evidence(seed: int, zoo: Any) -> Result:
    """Also: against as many answers, without the bonus, and with what fails kept."""

    def run(form: Any) -> float:
        return curve(form, zoo, seed, BATCHES, every=BATCHES, task=TASK, bed="strings-shown",
                     expert="task").last  # fmt: skip

    ours, theirs = run(icpo(**SIZES)), run(bare(16))
    return Result(
        ours, theirs,
        also={"percent solved, against as many answers": (ours, run(bare(8))),
              "percent solved, without the bonus": (ours, run(icpo(**{**SIZES, "bonus": 0.0}))),
              "percent solved, with what fails kept": (
                  ours, run(icpo(**{**SIZES, "least": 0.0}))),
              "percent solved, ratios to the behavior": (
                  ours, run(icpo(**{**SIZES, "to_behavior": True})))},
    )  # fmt: skip
