"""Evidence for CSVE: pessimism on the states where the policy leads."""

from __future__ import annotations

from typing import Any

import torch

from surpass.data.records import Transitions
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.evidence.offline.point import HIDDEN, discounted, learned, score
from surpass.methods.offline.cloning import bc
from surpass.methods.offline.conservative_values import csve
from surpass.methods.offline.pessimistic import cql
from surpass.objectives.conservative_values import imagined
from surpass.parts import set_at
from surpass.tasks.point import point_log
from surpass.training.run import Trained, train

ROWS, BATCH, LR, GAMMA = 6_000, 128, 1e-3, 0.97
MODEL, STEPS = 1_000, 3_000
MIXED: Any = {"medium": 0.8, "random": 0.2}
PESSIMISM, PRICE = 1.0, 5.0
"""alpha of CSVE, and of CQL."""


def cautious(alpha: float) -> Any:
    """CSVE at the size of this experiment, its multiplier fixed."""
    return csve(alpha, 0.0, threshold=0.0, gamma=GAMMA, lr=LR, batch=BATCH, model=MODEL,
                offline=STEPS, hidden=HIDDEN, model_hidden=HIDDEN)  # fmt: skip


def conservative(alpha: float) -> Any:
    """CQL at the size of this experiment."""
    form = cql(alpha, gamma=GAMMA, batch=BATCH)
    for net in ("q", "pi"):
        form = set_at(form, f"nets.{net}.hidden", HIDDEN)
    for step in ("0", "1"):
        form = set_at(form, f"update.{step}.optimizer.lr", LR)
    return form


def beyond(made: Trained, log: Transitions) -> float:
    """The mean of V at states where the model says that the policy leads from logged ones, less
    what the policy earns from there, discounted, over the range of such earnings."""
    obs, policy = log.obs[:: len(log) // 256][:256], made.policy
    assert policy.mean is not None and policy.std is not None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unit = (obs - policy.mean) / policy.std
        after = imagined(made.nets["model"], unit, policy.act(obs).action).clamp(-10.0, 10.0)
        v = made.nets["v"](after).mean(0)
        there = after * policy.std + policy.mean
    earned = discounted(lambda x: policy.act(x).action, there, GAMMA)
    return float((v - earned).mean() / (earned.max() - earned.min()))


@evidence(
    "csve",
    claim="with values of states that are pushed down where the policy leads it is not behind CQL "
    "and beats cloning by 5 points; those values exceed what the policy earns there by at most 5 % "
    "of the range, and by less than they do without pessimism",
    setting="POINT, 6,000 rows, 80 % of the episodes medium and 20 % uniform actions, 64x64 nets, "
    "1,000 updates of batch 128 for the model and 3,000 for the policy, gamma 0.97, the multiplier "
    "fixed, since so few updates cannot fit it",
    baseline="cql",
    metric="normalized return",
    bar=at_least(0.0),
    seeds=3,
    minutes=3,
)
def csve_evidence(seed: int, zoo: Any) -> Result:
    """Also: cloning, and the same algorithm without pessimism."""
    log = point_log(MIXED, ROWS, seed=seed)
    ours, hopeful = (train(cautious(a), log, seed=seed, log_every=STEPS) for a in (PESSIMISM, 0.0))
    others = {"cql": learned(conservative(PRICE), log, STEPS, seed),
              "bc": learned(bc(lr=LR, batch=BATCH, hidden=HIDDEN), log, STEPS, seed)}  # fmt: skip
    found, above = score(ours.policy), (beyond(ours, log), beyond(hopeful, log))
    return Result(
        found,
        score(others["cql"].policy),
        {
            "normalized return, against cloning": (
                found, score(others["bc"].policy), at_least(5.0)),
            "normalized return, against no pessimism": (found, score(hopeful.policy)),
            "V above what is earned where the policy leads, share of the range": (
                *above, at_most(0.05, alone=True)),
            "V above what is earned where the policy leads, against no pessimism": (
                *above, at_most(0.0)),
        },
    )  # fmt: skip
