"""MCEP: what acts is a second policy, less constrained than the one that values are learned of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.forms import Adam, Learner, adam, train
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.methods.offline.regression import regression
from surpass.objectives.value import clone, entropic, maximize
from surpass.objectives.weights import exponential, over_policy
from surpass.policies.acting import mean
from surpass.policies.deterministic import deterministic
from surpass.policies.gaussian import gaussian
from surpass.registry import system

__all__ = ["mcep", "mcep_awac", "with_evaluation_policy"]


def with_evaluation_policy(
    learner: Learner, net: Any, loss: Any, optimizer: Adam, every: int = 1
) -> Learner:
    """A learner that hands over another policy: the net "evaluation", which `loss` trains on the
    same batches after all else, and which no value ever sees."""
    return replace(
        learner,
        nets={**learner.nets, "evaluation": net},
        update=(*learner.update, train("evaluation", loss, optimizer, every=every)),
        act=mean("evaluation"),
    )


@system("mcep")
def mcep(
    alpha: float = 2.5, mild: float = 10.0, gamma: float = 0.99, lr: float = 3e-4,
    batch: int = 256, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """TD3+BC at alpha for the values; what acts maximizes mild Q / mean |Q| - mean (pi(s) - a)^2 of
    the same critic, mild > alpha."""
    tight = td3_bc(alpha, gamma, lr, batch, hidden)
    loss = maximize(scale=mild, pi="evaluation") + clone("evaluation")
    return with_evaluation_policy(tight, deterministic(hidden), loss, adam(lr), every=2)


@system("mcep:awac")
def mcep_awac(
    lam: float = 1.0, mild: float = 0.6, gamma: float = 0.99, lr: float = 3e-4,
    actor_lr: float = 3e-5, batch: int = 256, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """AWAC at lam for the values; what acts maximizes mean_i Q_i(s, a') + mild log pi(a|s),
    a' ~ pi, mild < lam. Q is not clipped at 10,000, as the release has it."""
    pi = gaussian(hidden, log_std=(-20.0, 2.0))
    tight = regression(
        exponential(over_policy(1), 1.0 / lam, 1000.0), 1, pi, gamma=gamma, lr=lr, batch=batch,
        actor_lr=actor_lr, hidden=hidden, normalize=False,
    )  # fmt: skip
    loss = entropic("mean", pi="evaluation", fixed=0.0) + mild * clone("evaluation")
    return with_evaluation_policy(tight, pi, loss, adam(actor_lr))
