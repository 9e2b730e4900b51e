"""Methods from dual problems: a value whose residual weighs the log, and a game against rewards."""

from __future__ import annotations

from surpass.critics.ensembles import value
from surpass.errors import InputError
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.descent import orthogonal
from surpass.objectives.dice import chi2_dice, forward_residual
from surpass.objectives.value import clone
from surpass.parts import stop
from surpass.policies.acting import mean, sampled
from surpass.policies.gaussian import gaussian
from surpass.registry import system

__all__ = ["odice"]

Hidden = tuple[int, ...]


@system("odice")
def odice(
    lam: float = 0.6, eta: float = 1.0, cap: float = 100.0, gradient: str = "orthogonal",
    gamma: float = 0.99, lr: float = 2e-4, norm: bool = True, batch: int = 256,
    hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """min (1 - lam) E[V(s)] + lam E[f*(r + gamma V(s') - V(s))], whose gradient through V(s') keeps
    what is orthogonal to that through V(s) ("semi" drops it, "true" keeps all)."""
    rules = {
        "orthogonal": orthogonal("forward", "backward", eta),
        "semi": orthogonal("forward", "backward", 0.0),
        "true": None,
    }
    if gradient not in rules:
        raise InputError(f"odice has no gradient {gradient!r}; it has {', '.join(rules)}")
    return Learner(
        nets={
            "v": value(2, hidden, norm), "pi": gaussian(hidden), "v_target": ema("v", 0.005),
        },
        update=(
            train("v", chi2_dice(lam, gamma), adam(lr), gradient=rules[gradient]),
            train("pi", stop(forward_residual(cap, gamma)) * clone(),
                  adam(lr, weight_decay=1e-4)),
        ),
        act=mean(),
        explore=sampled(),
        source=log(batch, gamma=gamma, reward_scale="range"),
        discrete=False,
    )  # fmt: skip
