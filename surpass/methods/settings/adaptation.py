"""IDAQ: many tasks in one log; in a new one, believe only the episodes that look like the log."""

from __future__ import annotations

from surpass.critics.context import coded, context_encoder, task_codebook
from surpass.critics.ensembles import critic
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.bellman import clipped_double, td
from surpass.objectives.context import codebook, reward_fit, task_distance, with_task_code
from surpass.objectives.value import clone, maximize
from surpass.policies.adapting import adapting
from surpass.policies.deterministic import deterministic
from surpass.registry import system

__all__ = ["idaq"]


@system("idaq")
def idaq(
    tasks: int, uncertainty: str = "return", keep: str = "familiar", budget: int = 20,
    reference: int = 8, alpha: float = 2.5, d: int = 20, members: int = 12, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 512, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """Codes by distances between the `tasks` of the log, TD3+BC on [s; z]; then trial by trial,
    keeping the episodes of least uncertainty."""
    return Learner(
        nets={
            "encoder": context_encoder(d, hidden),
            "codes": task_codebook(tasks, d),
            "rewards": coded(critic(members, hidden), d),
            "q": coded(critic(2, hidden), d),
            "pi": coded(deterministic(hidden), d),
            "q_target": ema("q", 0.005),
            "pi_target": ema("pi", 0.005),
        },
        update=(
            train("encoder", task_distance(tasks), adam(lr)),
            train("codes", codebook(), adam(1e-2)),
            train("rewards", reward_fit(), adam(lr)),
            train("q", td(clipped_double(), gamma), adam(lr)),
            train("pi", maximize(scale=alpha) + clone(), adam(lr)),
        ),
        prepare=(with_task_code(tasks),),
        act=adapting(budget, reference, keep, uncertainty),
        source=log(batch, gamma=gamma),
        discrete=False,
    )
