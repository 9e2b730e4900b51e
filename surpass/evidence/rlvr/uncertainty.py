"""Evidence of a temperature, bounds and an advantage for every token: MODSUM-LM, whose running sums
are uncertain and whose other tokens are not."""

from __future__ import annotations

from typing import Any

import torch

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.rlvr.curves import curve
from surpass.methods.rlvr.policy_gradients import dapo
from surpass.methods.rlvr.uncertainty import hapo_token
from surpass.objectives.divergence import entropy
from surpass.policies.generation import Sampling, generate
from surpass.tasks.language import ModSum

BATCHES = 30
SIZES: dict[str, Any] = {"group": 8, "batch": 128, "horizon": ModSum().response_length,
                         "minibatches": 4, "lr": 3e-4}  # fmt: skip


def unsure(policy: Any, task: ModSum) -> tuple[float, float]:
    """The mean entropy (nats) of a policy's own answers to 256 held-out prompts: at running sums,
    and at what is copied behind them."""
    g = torch.Generator().manual_seed(4321)
    asked = task.prompts(256, g)
    seq = generate(policy, asked.tokens, asked.mask, Sampling(task.response_length), generator=g)
    with torch.no_grad():
        found = policy.score(seq, (entropy,)).statistics["entropy"]
    (semicolon,) = task.vocabulary.encode(";")
    behind = (seq.action == semicolon).int().cumsum(-1) > 0
    sums, copied = (seq.mask * side.float() for side in (~behind, behind))
    return tuple(float((found * m).sum() / m.sum()) for m in (sums, copied))  # type: ignore[return-value]


@evidence(
    "hapo-token",
    claim="by the uncertainty of each token HAPO solves a point more than DAPO after as many "
    "batches, and keeps 1.2 times its entropy at the uncertain tokens",
    baseline="dapo, the same refilled batches, steps and rate",
    metric="percent of held-out prompts solved after 30 batches of 128",
    bar=at_least(1.0), seeds=6, minutes=6.0,
    setting="MODSUM-LM, four steps a batch, rate 3e-4.",
)  # fmt: skip
def hapo_token_evidence(seed: int, zoo: Any) -> Result:
    """Also: entropies, and what is solved halfway."""
    ours, theirs = (
        curve(form, zoo, seed, BATCHES, every=BATCHES // 2)
        for form in (hapo_token(**SIZES), dapo(**SIZES))
    )
    mine, other = (unsure(c.policy, ModSum()) for c in (ours, theirs))
    return Result(
        ours.last, theirs.last,
        also={"entropy at running sums": (mine[0], other[0], at_least(1.2, times=True)),
              "entropy at what is copied": (mine[1], other[1]),
              "percent solved halfway": (ours.solved[0], theirs.solved[0])},
    )  # fmt: skip
