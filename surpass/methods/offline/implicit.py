"""Implicit Q-learning: no action outside the log is ever evaluated."""

from __future__ import annotations

from typing import Any

from surpass.critics.ensembles import critic, value
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.bellman import state_value, td
from surpass.objectives.value import clone, expectile, quantile_expectile
from surpass.objectives.weights import exponential, over_value, quantile_over_value
from surpass.parts import cosine, stop
from surpass.policies.acting import mean, sampled
from surpass.policies.deterministic import deterministic
from surpass.policies.gaussian import actor
from surpass.registry import system

__all__ = ["implicit", "iql", "riql"]


def implicit(
    pi: Any, state_loss: Any, action_loss: Any, advantage: Any, *, n: int, temperature: float,
    lr: float, polyak: float, decay: int, source: Any, hidden: tuple[int, ...],
    norm: bool = False,
) -> Learner:  # fmt: skip
    """V from Q of logged actions (an expectile of it), Q from V, the policy by weighted cloning, in
    that order; `norm` gives V LayerNorm."""
    return Learner(
        nets={
            "v": value(1, hidden, norm),
            "q": critic(n, hidden),
            "pi": pi,
            "q_target": ema("q", polyak),
        },
        update=(
            train("v", state_loss, adam(lr)),
            train("q", action_loss, adam(lr)),
            train(
                "pi",
                stop(exponential(advantage, temperature, 100.0)) * clone(),
                adam(cosine(lr, 0.0, steps=decay)),
            ),
        ),
        act=mean(),
        explore=sampled(),
        source=source,
    )


@system("iql")
def iql(
    tau: float = 0.7, temperature: float = 3.0, gamma: float = 0.99, polyak: float = 0.005,
    lr: float = 3e-4, decay: int = 1_000_000, batch: int = 256,
    hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """max E[min(exp(temperature (Q - V)), 100) log pi(a|s)], V an expectile of Q."""
    return implicit(
        actor(hidden),
        expectile(tau),
        td(state_value(), gamma),
        over_value("q_target"),
        n=2,
        temperature=temperature,
        lr=lr,
        polyak=polyak,
        decay=decay,
        source=log(batch, gamma=gamma),
        hidden=hidden,
    )


@system("riql")
def riql(
    tau: float = 0.7, temperature: float = 3.0, alpha: float = 0.25, sigma: float = 1.0,
    critics: int = 5, gamma: float = 0.99, polyak: float = 0.005, lr: float = 3e-4,
    decay: int = 1_000_000, batch: int = 256, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """IQL for corrupted logs: standardized observations, a Huber critic loss, and a low quantile
    over more critics."""
    return implicit(
        deterministic(hidden),
        quantile_expectile(tau, alpha),
        td(state_value(), gamma, huber=sigma**-2, clamp=(-100.0, 1000.0)),
        quantile_over_value(alpha, "q_target"),
        n=critics,
        temperature=temperature,
        lr=lr,
        polyak=polyak,
        decay=decay,
        source=log(batch, normalize=True, gamma=gamma),
        hidden=hidden,
    )
