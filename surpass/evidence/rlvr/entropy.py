"""Evidence that a penalty on the few tokens of the largest covariance keeps entropy: MODSUM-LM."""

from __future__ import annotations

import copy
from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.rlvr.entropy_cov import clip_covariance, kl_covariance
from surpass.methods.rlvr.policy_gradients import grpo
from surpass.tasks.language import ModSum
from surpass.training.module_run import train_language

LEVEL = 0.8
SIZES: dict[str, Any] = {"group": 8, "batch": 128, "horizon": ModSum().response_length,
                         "minibatches": 4, "lr": 1e-4}  # fmt: skip


def entropy_at(form: Any, zoo: Any, seed: int, most: int = 60) -> tuple[float, float]:
    """The entropy per sampled token, nats, around the batch whose success first reaches a level,
    and that batch."""
    bed, seen = zoo("modsum-reference"), []
    train_language(
        form, model=copy.deepcopy(bed.policy), task=bed.task, steps=most, seed=seed,
        callback=lambda step, notes, _: seen.append((notes["reward"], notes["sampled_entropy"])),
    )  # fmt: skip
    at = next((i for i, (reward, _) in enumerate(seen) if reward >= LEVEL), len(seen) - 1)
    near = [entropy for _, entropy in seen[max(at - 1, 0) : at + 2]]
    return sum(near) / len(near), float(at + 1)


@evidence(
    "entropy-cov",
    claim="at the same success the policy trained with KL-Cov keeps at least twice the entropy of "
    "GRPO's",
    baseline="GRPO without a reference, the same rate, batches and four steps a batch",
    metric="entropy per sampled token when four answers in five of a batch are right",
    bar=at_least(2.0, times=True), seeds=6, minutes=4.0,
    setting="MODSUM-LM, batches of 128, rate 1e-4; the tenth of the tokens with the largest "
    "covariance is held, beta 1.",
    note="It keeps 1.1 times the entropy: a sum has one right answer, so that entropy falls with "
    "success under either rule, as it did on a table of many right answers before.",
)  # fmt: skip
def entropy_cov_evidence(seed: int, zoo: Any) -> Result:
    """Also: batches to get there, and Clip-Cov, which drops tokens above the 90th percentile."""
    ours, steps = entropy_at(kl_covariance(share=0.1, beta=1.0, **SIZES), zoo, seed)
    theirs, baseline = entropy_at(grpo(beta=0.0, **SIZES), zoo, seed)
    clipped, _ = entropy_at(clip_covariance(share=0.05, quantile=0.9, **SIZES), zoo, seed)
    return Result(ours, theirs, also={
        "batches to get there": (steps, baseline),
        "entropy of Clip-Cov": (clipped, theirs),
    })  # fmt: skip
