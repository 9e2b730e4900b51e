"""Policies by weighted cloning, with a critic of the policy itself: AWAC and CRR."""

from __future__ import annotations

from typing import Any

from surpass.critics.ensembles import critic
from surpass.errors import InputError
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.bellman import expected, td
from surpass.objectives.value import clone
from surpass.objectives.weights import exponential, over_policy, positive
from surpass.parts import stop
from surpass.policies.acting import mean, sampled
from surpass.policies.gaussian import gaussian
from surpass.registry import system

__all__ = ["awac", "crr"]


def regression(
    weight: Any, samples: int, pi: Any, *, gamma: float, lr: float, batch: int,
    actor_lr: float | None = None, hidden: tuple[int, ...] = (256, 256), normalize: bool = True,
) -> Learner:  # fmt: skip
    """Critics of the policy's own value; the policy clones logged actions by `weight`."""
    return Learner(
        nets={
            "q": critic(2, hidden),
            "pi": pi,
            "q_target": ema("q", 0.005),
        },
        update=(
            train("q", td(expected(samples), gamma), adam(lr)),
            train("pi", stop(weight) * clone(), adam(actor_lr or lr)),
        ),
        act=mean(),
        explore=sampled(),
        source=log(batch, normalize=normalize, gamma=gamma),
        discrete=False,
    )


@system("awac")
def awac(
    lam: float = 1.0, samples: int = 1, gamma: float = 0.99, lr: float = 3e-4, batch: int = 256
) -> Learner:
    """max E[exp(A(s, a) / lam) log pi(a|s)], A over the policy's own actions."""
    weight = exponential(over_policy(samples), 1.0 / lam, 100.0)
    return regression(weight, 1, gaussian(squashed=False), gamma=gamma, lr=lr, batch=batch)


@system("crr")
def crr(
    rule: str = "binary", beta: float = 1.0, samples: int = 4, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256,
) -> Learner:  # fmt: skip
    """max E[f(A(s, a)) log pi(a|s)], f = 1[A > 0] ("binary") or min(exp(A / beta), 20) ("exp")."""
    rules = {
        "binary": positive(over_policy(samples)),
        "exp": exponential(over_policy(samples), 1.0 / beta, 20.0),
    }
    if rule not in rules:
        raise InputError(f"crr has no rule {rule!r}; it has {', '.join(rules)}")
    return regression(rules[rule], samples, gaussian(), gamma=gamma, lr=lr, batch=batch)
