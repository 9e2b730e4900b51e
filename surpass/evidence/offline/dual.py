"""Evidence for methods from dual problems: O-DICE's projection, MAHALO's missing rewards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.offline.point import HIDDEN, learned, score
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.dual import mahalo, odice
from surpass.tasks.point import point_log
from surpass.training.run import train

STEPS, ROWS, BATCH, LR, LAM = 2_000, 20_000, 128, 1e-3, 0.6


def worth(log: Any, gradient: str, seed: int) -> float:
    """The score on the pendulum with one of the three gradients."""
    form = odice(LAM, gradient=gradient, lr=LR, batch=BATCH, hidden=HIDDEN)
    return score(learned(form, log, STEPS, seed).policy, "pendulum", 64)


@evidence(
    "odice",
    claim="on a log of random, medium and expert episodes the orthogonal gradient beats the true "
    "gradient of the same objective by 10 points, and is not 2 points behind the semi-gradient",
    setting="pendulum, the zoo's mixed log, 20,000 rows, 64x64 nets, 2,000 updates of batch 128, "
    "lambda 0.6 as in the paper",
    baseline="the same objective with its true gradient; lambda and learning rate the same",
    metric="normalized return",
    bar=at_least(10.0),
    seeds=3,
    minutes=2,
    note="On this log the semi-gradient is far ahead (72 points against 14), and what keeps the "
    "orthogonal part back is not understood; in a trial on POINT all three scored 94 to 98.",
)
def odice_evidence(seed: int, zoo: Any) -> Result:
    log = zoo("pendulum-mixed")[:ROWS]
    found = {g: worth(log, g, seed) for g in ("orthogonal", "true", "semi")}
    also = {"normalized return, against the semi-gradient": (
        found["orthogonal"], found["semi"], at_least(-2.0))}  # fmt: skip
    return Result(found["orthogonal"], found["true"], also)


UNPAID: Any = {"medium": 0.5, "random": 0.5}
WARM, GAME = 1_000, 2_000


@evidence(
    "mahalo",
    claim="with rewards known for five expert episodes only, the game beats TD3+BC on rewards that "
    "a net imputes by 3 points",
    setting="POINT, 8,000 rows of medium and random episodes without rewards, 5 expert episodes "
    "with rewards, 64x64 nets, 1,000 updates to warm up and 2,000 of the game, batch 256, "
    "the policy's learning rate 1e-4",
    baseline="td3-bc on the rewards that the warm start's net gives to the unpaid rows, as many "
    "updates; both with the papers' defaults, tuned neither",
    metric="normalized return",
    bar=at_least(3.0),
    seeds=3,
    minutes=3,
)
def mahalo_evidence(seed: int, zoo: Any) -> Result:
    log, paid = point_log(UNPAID, 8_000, seed=seed), point_log("expert", 300, seed=seed)
    log.reward = torch.zeros_like(log.reward)
    form = mahalo(lr=LR, slow=1e-4, bounds=(-3.0, 0.0), batch=256, warm=WARM, steps=GAME,
                  hidden=HIDDEN)  # fmt: skip
    ours = train(form, log, labeled=paid, seed=seed, compile=False, log_every=GAME)
    warm = replace(form, stages=form.stages[:1])
    net = train(warm, log, labeled=paid, seed=seed, compile=False, log_every=WARM).nets["reward"]
    imputed = log.clone()
    with torch.no_grad():
        imputed.reward = net(log.obs, log.next_obs, log.terminated.float()).clamp(-3.0, 0.0)
    theirs = learned(td3_bc(lr=LR, batch=BATCH, hidden=HIDDEN), imputed, WARM + GAME, seed)
    return Result(score(ours.policy), score(theirs.policy))
