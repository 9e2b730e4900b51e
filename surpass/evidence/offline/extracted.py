"""Evidence for MCEP: a constraint for values, and a milder one for what acts."""

from __future__ import annotations

from typing import Any

from surpass.data.records import Transitions
from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.offline.point import HIDDEN, learned, score
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.extracted import mcep
from surpass.policies.acting import InEnvironment, mean
from surpass.tasks.recording import joined
from surpass.training.run import Trained

STEPS, ROWS, BATCH, LR = 3_000, 20_000, 128, 1e-3
SIZES: dict[str, Any] = {"lr": LR, "batch": BATCH, "hidden": HIDDEN}
TIGHT, MILD = 2.5, 10.0
"""alpha of the two policies, as published; TD3+BC is tried with both."""


def mostly_medium(zoo: Any) -> Transitions:
    """14,000 rows of the zoo's medium log and 6,000 of uniform actions."""
    share = int(0.7 * ROWS)
    return joined([zoo("pendulum-medium")[:share], zoo("pendulum-random")[: ROWS - share]])


def tight(trained: Trained) -> InEnvironment:
    """The target policy, which nobody would let act."""
    policy = trained.policy
    return InEnvironment(mean("pi")(trained.nets, {}), trained.spaces, policy.mean, policy.std)


@evidence(
    "mcep",
    claim="a second, milder policy read off the same values beats the one they are learned of by 3 "
    "points, and is not behind TD3+BC with either of their constraints",
    setting="pendulum, 14,000 rows of the zoo's medium log and 6,000 of the random one, 64x64 "
    "nets, 3,000 updates of batch 128",
    baseline="its own target policy; td3-bc at alpha 2.5 and at 10, which are MCEP's two",
    metric="normalized return",
    bar=at_least(3.0),
    seeds=5,
    minutes=2,
)
def mcep_evidence(seed: int, zoo: Any) -> Result:
    log = mostly_medium(zoo)
    ours = learned(mcep(TIGHT, MILD, **SIZES), log, STEPS, seed)
    found, also = score(ours.policy, "pendulum", 64), {}
    for alpha in (TIGHT, MILD):
        other = learned(td3_bc(alpha, **SIZES), log, STEPS, seed).policy
        also[f"normalized return, against TD3+BC at alpha {alpha:g}"] = (
            found, score(other, "pendulum", 64), at_least(0.0))  # fmt: skip
    return Result(found, score(tight(ours), "pendulum", 64), also)
