"""Evidence of adaptation to a new task from episodes that look like the log."""

from __future__ import annotations

import math
from typing import Any

import torch

from surpass.evaluation.rollouts import roll_out
from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.settings.adaptation import idaq
from surpass.tasks.catalog import ControlTask
from surpass.tasks.goals import SparseGoal, goal_log
from surpass.training.run import train

TRAINING, NEW, BUDGET, COPIES = 16, 6, 15, 8


def _last(policy: Any, angle: float) -> float:
    """Mean return of the final episode, over copies that each adapt by themselves."""
    task: Any = ControlTask("goals", "find the goal", SparseGoal(angle))
    found = roll_out(policy, task, BUDGET * COPIES, copies=COPIES)
    return float(found.returns.reshape(COPIES, BUDGET)[:, -1].mean())


@torch.no_grad()
def _told(trained: Any, angle: float, seed: int) -> Any:
    """The policy with the code of a log of the new task: the best that codes can do."""
    log = goal_log([angle], 20, seed=1_000 + seed)
    code = trained.nets["encoder"](log.obs, log.action, log.reward).mean(0)
    return trained.policy.given(code=code)


@evidence(
    "idaq",
    claim="after 15 episodes in a new task, the policy that believes its episodes of high return "
    "earns more than the one that believes all of its own",
    setting="a goal on a half circle that pays only when it is near; 16 tasks of 20 episodes to "
    "learn from, 6 new ones; 1,500 updates of small nets",
    baseline="the same nets with every episode as context; random is 0, told is the code of a log "
    "of the new task",
    metric="return of the last episode, as a share of what the told policy earns",
    bar=at_least(0.3), seeds=3, minutes=1.5,
)  # fmt: skip
def idaq_evidence(seed: int, zoo: Any) -> Result:
    """Also: uncertainty by the reward models' disagreement and error."""
    angles = [math.pi * (k + 0.5) / TRAINING for k in range(TRAINING)]
    fresh = torch.rand(NEW, generator=torch.Generator().manual_seed(seed)) * math.pi
    form = idaq(TRAINING, budget=BUDGET, reference=8, d=8, members=5, lr=1e-3, batch=256,
                hidden=(48, 48))  # fmt: skip
    trained = train(form, goal_log(angles, 20, seed=seed), steps=1_500, seed=seed, compile=False)
    torch.manual_seed(seed)
    kinds: dict[str, dict[str, Any]] = {
        "return": {}, "all": {"keep": "all"}, "variance": {"uncertainty": "variance"},
        "error": {"uncertainty": "error"},
    }  # fmt: skip
    earned = dict.fromkeys((*kinds, "told"), 0.0)
    for angle in fresh.tolist():
        for name, condition in kinds.items():
            earned[name] += _last(trained.policy.given(**condition), angle) / NEW
        task: Any = ControlTask("goals", "find the goal", SparseGoal(angle))
        earned["told"] += roll_out(_told(trained, angle, seed), task, 1).mean / NEW
    share = {name: value / max(earned["told"], 1e-6) for name, value in earned.items()}
    return Result(
        share["return"], share["all"],
        {
            "share by the models' disagreement": (share["return"], share["variance"],
                                                  at_least(0.0)),
            "share by the models' error": (share["return"], share["error"]),
            "return of the told policy": (earned["told"], earned["return"]),
        },
    )  # fmt: skip
