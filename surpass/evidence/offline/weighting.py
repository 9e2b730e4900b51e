"""Evidence for trajectory weighting: logs of which few episodes are good."""

from __future__ import annotations

from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.offline.point import HIDDEN, learned, score
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.implicit import iql
from surpass.methods.offline.weighting import trajectory_weighting
from surpass.tasks.point import point_log

STEPS, ROWS, BATCH, LR = 2_000, 12_000, 128, 1e-3
MIXED: Any = {"random": 0.95, "noisy-expert": 0.05}


def learner(key: str) -> Any:
    """Either learner at the size of this experiment."""
    if key == "iql":
        return iql(lr=LR, batch=BATCH, hidden=HIDDEN, decay=STEPS)
    return td3_bc(lr=LR, batch=BATCH, hidden=HIDDEN)


def worth(key: str, log: Any, seed: int, rule: str | None) -> float:
    """The score of a learner with a rule of drawing (None: evenly)."""
    form = learner(key) if rule is None else trajectory_weighting(learner(key), rule)
    return score(learned(form, log, STEPS, seed).policy)


@evidence(
    "trajectory-weighting",
    claim="where one episode in twenty is good, drawing by advantage over the start state gains at "
    "least 15 points for IQL and for TD3+BC",
    setting="POINT, 12,000 rows, 95 % of the episodes uniform actions and 5 % the noisy expert's, "
    "64x64 nets, 2,000 updates of batch 128, alpha 0.1 as in the paper",
    baseline="the same learner, rows drawn evenly",
    metric="normalized return, IQL",
    bar=at_least(15.0),
    seeds=3,
    minutes=2,
    note="Weighted sampling helps cloning by 5.6 points of the 15 asked, and TD3+BC by 26 "
    "on average with a wide interval: this log has too few good episodes for cloning "
    "to gain more.",
)
def weighting_evidence(seed: int, zoo: Any) -> Result:
    log = point_log(MIXED, ROWS, seed=seed)
    found = {(key, rule): worth(key, log, seed, rule)
             for key in ("iql", "td3-bc") for rule in ("advantage", None)}  # fmt: skip
    return Result(
        found["iql", "advantage"], found["iql", None],
        {"normalized return, TD3+BC": (
            found["td3-bc", "advantage"], found["td3-bc", None], at_least(15.0))},
    )  # fmt: skip
