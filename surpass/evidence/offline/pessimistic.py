"""Evidence for C-CQL: being pushed off the states of the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from surpass.data.records import Transitions
from surpass.evaluation.rollouts import roll_out
from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.offline.point import HIDDEN
from surpass.forms import Stage, Stages, given
from surpass.methods.offline.pessimistic import c_cql
from surpass.objectives.bellman import conservative, soft, td
from surpass.tasks.catalog import normalized, task
from surpass.tasks.point import point_log
from surpass.training.run import Trained, train

ROWS, BATCH, LR, GAMMA = 6_000, 128, 1e-3, 0.97
INVERSE, STEPS, SAMPLES = 1_000, 3_000, 4
ALPHA, SIGMA = 5.0, 0.1
"""Of both; and of the noise, in standard units."""


def form(sigma: float = SIGMA) -> Stages:
    """C-CQL at the size of this experiment."""
    return c_cql(ALPHA, sigma, SAMPLES, GAMMA, LR, LR, LR, BATCH, INVERSE, STEPS, HIDDEN)


def plain() -> Any:
    """CQL: the same learner with the penalty at logged states and actions."""
    stage = form().stages[1]
    assert isinstance(stage, Stage)
    critic, *others = stage.do.update
    loss = td(soft(entropy=False), GAMMA) + ALPHA * conservative(SAMPLES)
    return replace(stage.do, update=(replace(critic, loss=loss), *others))


def shuffled(log: Transitions, seed: int) -> Transitions:
    """The log with its actions exchanged among rows, which teaches inverse dynamics nothing."""
    out = log.clone(recurse=False)  # type: ignore[call-arg]
    order = torch.randperm(len(log), generator=torch.Generator().manual_seed(seed))
    out.action = log.action[order]
    return out


def worth(made: Trained, kicked: bool) -> float:
    """The score in the task as it is, or with a push in one step of ten."""
    world = task("point", kick=0.1 if kicked else 0.0)
    returns = roll_out(made.policy, world, 256, seed=20_000, copies=256).returns
    return float(normalized("point", returns.mean()))


def misled(log: Transitions, seed: int) -> Trained:
    """C-CQL with inverse dynamics that were fitted to a shuffled log."""
    first, second = form().stages
    assert isinstance(first, Stage) and isinstance(second, Stage)
    wrong = train(first.do, shuffled(log, seed), steps=INVERSE, seed=seed, log_every=INVERSE)
    nets = {**second.do.nets, "inverse": given("inverse")}
    learner = replace(second.do, nets=nets)
    return train(learner, log, steps=STEPS, seed=seed, log_every=STEPS,
                 inverse=wrong.nets["inverse"])  # fmt: skip


@evidence(
    "c-cql",
    claim="under pushes off the log's states C-CQL beats CQL by 5 points, without them it is not 3 "
    "points behind, and inverse dynamics of a shuffled log lose the gain",
    setting="POINT, 6,000 rows of the medium controller, 64x64 nets, 1,000 updates of batch 128 "
    "for inverse dynamics and 3,000 for the policy, gamma 0.97, alpha 5, sigma 0.1; each step with "
    "probability 0.1 a push N(0, 0.3^2) on every number of the state",
    baseline="cql, the same nets and alpha",
    metric="normalized return under pushes",
    bar=at_least(5.0),
    seeds=3,
    minutes=3,
)
def c_cql_evidence(seed: int, zoo: Any) -> Result:
    log = point_log("medium", ROWS, seed=seed)
    ours = train(form(), log, seed=seed, log_every=STEPS)
    theirs = train(plain(), log, steps=STEPS, seed=seed, log_every=STEPS)
    lost = misled(log, seed)
    found = worth(ours, True)
    return Result(
        found,
        worth(theirs, True),
        {
            "normalized return without pushes": (
                worth(ours, False), worth(theirs, False), at_least(-3.0)),
            "normalized return under pushes, against shuffled inverse dynamics": (
                found, worth(lost, True), at_least(0.0)),
        },
    )  # fmt: skip
