"""CFCQL: conservative values of joint actions, pessimistic about one agent at a time."""

from __future__ import annotations

from typing import Any

from surpass.critics.mixing import agent_policy, mixed_value
from surpass.forms import Learner, adam, copy, log, train
from surpass.objectives.bellman import td
from surpass.objectives.many_agents import counterfactual_penalty, greedy_double, joint_penalty
from surpass.objectives.value import clone
from surpass.policies.acting import best_joint
from surpass.registry import system

__all__ = ["cfcql", "joint_cql"]

Hidden = tuple[int, ...]


def _conservative(
    penalty: Any, alpha: float, gamma: float, lr: float, mixer: str, sync: int, batch: int,
    hidden: Hidden,
) -> Learner:  # fmt: skip
    return Learner(
        nets={
            "behavior": agent_policy(hidden),
            "q": mixed_value(hidden, mixer),
            "q_target": copy("q", every=sync),
        },
        update=(
            train("behavior", clone("behavior"), adam(lr)),
            train("q", 0.5 * td(greedy_double(), gamma) + alpha * penalty, adam(lr)),
        ),
        act=best_joint(),
        source=log(batch, gamma=gamma),
        discrete=True,
    )


@system("cfcql")
def cfcql(
    alpha: float = 1.0, temperature: float = 5.0, gamma: float = 0.99, lr: float = 1e-3,
    mixer: str = "qmix", sync: int = 200, batch: int = 256, hidden: Hidden = (64, 64),
) -> Learner:  # fmt: skip
    """min E[(Q - y)^2] / 2 + alpha E[sum_i lambda_i (logsumexp_a Q(s, a, a_-i) - Q(s, a_log))]."""
    penalty = counterfactual_penalty(temperature)
    return _conservative(penalty, alpha, gamma, lr, mixer, sync, batch, hidden)


@system("cfcql:joint")
def joint_cql(
    alpha: float = 1.0, samples: int = 100, gamma: float = 0.99, lr: float = 1e-3,
    mixer: str = "qmix", sync: int = 200, batch: int = 256, hidden: Hidden = (64, 64),
) -> Learner:  # fmt: skip
    """The same with the penalty on random joint actions (MACQL), the baseline."""
    return _conservative(joint_penalty(samples), alpha, gamma, lr, mixer, sync, batch, hidden)
