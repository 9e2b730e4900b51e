"""CFCQL: conservative values of joint actions, pessimistic about one agent at a time.

Each agent's utilities read its own observation of the step, where the paper's are recurrent, and
targets look one step ahead, where the paper's are TD(lambda). The Gaussian that stands for who
logged continuous actions is a variational autoencoder in the paper.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.critics.mixing import agent_policy, mixed_value
from surpass.forms import Learner, adam, copy, log, train
from surpass.methods.actor_critic import twin_delayed
from surpass.objectives.bellman import clipped_double, td
from surpass.objectives.many_agents import (
    counterfactual_penalty,
    counterfactual_samples,
    greedy_double,
    joint_penalty,
)
from surpass.objectives.value import clone, maximize
from surpass.policies.acting import best_joint
from surpass.policies.many_agents import agent_actor, agent_gaussian
from surpass.registry import system

__all__ = ["cfcql", "cfcql_continuous", "joint_cql"]

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


@system("cfcql:continuous")
def cfcql_continuous(
    agents: int, alpha: float = 1.0, temperature: float = 5.0, samples: int = 10,
    noise: float = 0.2, gamma: float = 0.99, lr: float = 3e-4, batch: int = 256,
    hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """TD3 with a critic of all `agents` and an actor of each, whose penalty lets one agent at a
    time deviate: rows are obs [N, agents d] and action [N, agents k]."""
    penalty = counterfactual_samples(agents, samples, noise, temperature)
    learner = twin_delayed(maximize(), gamma=gamma, lr=lr, hidden=hidden)
    return replace(
        learner,
        nets={
            **learner.nets,
            "pi": agent_actor(agents, hidden),
            "behavior": agent_gaussian(agents, hidden),
        },
        update=(
            train("behavior", clone("behavior"), adam(lr)),
            train("q", td(clipped_double(), gamma) + alpha * penalty, adam(lr)),
            *learner.update[1:],
        ),
        source=log(batch, gamma=gamma),
    )
