"""Evidence on `modsum-lm`: running sums modulo 10, a Llama of 0.1 M weights that is right at about
one prompt in four."""

from __future__ import annotations

from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.forms import PolicyGradient
from surpass.methods.rlvr.rec import asymre, opmd, rec
from surpass.training.language_rollouts import RolloutStream, TaskPrompts
from surpass.training.modules import ModuleTrainer
from surpass.zoo.language import accuracy


def lifted(
    form: PolicyGradient, batches: int, seed: int, zoo: Any
) -> tuple[float, list[dict[str, float]]]:
    """The sampled accuracy on 512 held-out prompts after some batches, and what each measured."""
    bed = zoo("modsum-reference")
    stream = RolloutStream(bed.policy, TaskPrompts(bed.task, seed), form.source, seed=seed,
                           select=form.select)  # fmt: skip
    trainer = ModuleTrainer(form, bed.policy, stream, seed=seed)
    notes = [trainer.update() for _ in range(batches)]
    return accuracy(bed.policy, bed.task, each=2), notes


# ------------------------------------------------------------------------------------------- rec

STALE: dict[str, Any] = {
    "group": 8, "batch": 1280, "horizon": 12, "minibatches": 20, "lr": 1e-3,
}  # fmt: skip


@evidence(
    "rec",
    claim="on answers that feed twenty updates REINFORCE breaks down, and a one-sided mask alone, "
    "without importance ratio, makes it learn",
    baseline="REINFORCE: the same loss without mask, the same rate and batches",
    metric="accuracy on held-out prompts after 120 updates",
    bar=at_least(0.1), seeds=3, minutes=1.5,
    setting="modsum-lm from 0.21; six batches of 1,280 answers, Adam 1e-3.",
)  # fmt: skip
def rec_evidence(seed: int, zoo: Any) -> Result:
    """Also: the mask with the ratio and without, the wide range, OPMD and AsymRE."""
    plain, _ = lifted(rec(mask="none", **STALE), 6, seed, zoo)
    masked, _ = lifted(rec(**STALE), 6, seed, zoo)
    ratio, _ = lifted(rec(importance=True, **STALE), 6, seed, zoo)
    wide, _ = lifted(rec(low=0.6, high=2.0, **STALE), 6, seed, zoo)
    return Result(
        masked, plain,
        also={
            "accuracy with the ratio, and without": (ratio, masked),
            "accuracy with the wide range (0.6, 2.0), and the narrow": (wide, masked),
            "accuracy of OPMD 0.1": (lifted(opmd(0.1, **STALE), 6, seed, zoo)[0], plain),
            "accuracy of AsymRE 0.1": (lifted(asymre(0.1, **STALE), 6, seed, zoo)[0], plain),
        },
    )  # fmt: skip
