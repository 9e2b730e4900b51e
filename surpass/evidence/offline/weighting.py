"""Evidence for trajectory weighting: logs of which few episodes are good."""

from __future__ import annotations

from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.offline.point import HIDDEN, learned, score
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.implicit import iql
from surpass.methods.offline.weighting import trajectory_weighting
from surpass.tasks.point import point_log
from surpass.tasks.recording import joined

STEPS, ROWS, BATCH, LR, WORST = 2_000, 20_000, 128, 1e-3, 16.2736
MIXED: Any = {"random": 0.95, "expert": 0.05}


def learner(key: str) -> Any:
    """Either learner at the size of this experiment."""
    if key == "iql":
        return iql(lr=LR, batch=BATCH, hidden=HIDDEN, decay=STEPS)
    return td3_bc(lr=LR, batch=BATCH, hidden=HIDDEN)


def pendulum(zoo: Any) -> Any:
    """95 random episodes and 5 of the expert, rewards from 0 (worst) to 1."""
    few = ROWS // 20
    log = joined([zoo("pendulum-random")[: ROWS - few], zoo("pendulum-expert")[:few]])
    log.reward = 1.0 + log.reward / WORST
    return log


def worth(key: str, log: Any, task: str, seed: int, rule: str | None) -> float:
    """The score of a learner with a rule of drawing (None: evenly)."""
    form = learner(key) if rule is None else trajectory_weighting(learner(key), rule)
    return score(learned(form, log, STEPS, seed).policy, task, 256 if task == "point" else 64)


@evidence(
    "trajectory-weighting",
    claim="where one episode in twenty is good, drawing by advantage over the start state gains at "
    "least 15 points for IQL and for TD3+BC",
    setting="pendulum and POINT, each 20,000 rows, 95 % of the episodes uniform actions and 5 % "
    "the expert's, 64x64 nets, 2,000 updates of batch 128, alpha 0.1 as in the paper",
    baseline="the same learner, rows drawn evenly",
    metric="normalized return, IQL, pendulum",
    bar=at_least(15.0),
    seeds=5,
    minutes=6,
    note="On POINT even draws already bring IQL to 91, and drawing by advantage to 97: there it is "
    "reported only, since 15 points are not there to be gained.",
)
def weighting_evidence(seed: int, zoo: Any) -> Result:
    """Also: IQL on POINT, reported only, since even draws leave it little to gain there."""
    logs = {"pendulum": pendulum(zoo), "point": point_log(MIXED, ROWS, seed=seed)}
    found = {
        (key, task): (worth(key, log, task, seed, "advantage"), worth(key, log, task, seed, None))
        for key in ("iql", "td3-bc") for task, log in logs.items()
    }  # fmt: skip
    return Result(
        *found["iql", "pendulum"],
        {
            "normalized return, TD3+BC, pendulum": (*found["td3-bc", "pendulum"], at_least(15.0)),
            "normalized return, TD3+BC, POINT": (*found["td3-bc", "point"], at_least(15.0)),
            "normalized return, IQL, POINT": found["iql", "point"],
        },
    )
