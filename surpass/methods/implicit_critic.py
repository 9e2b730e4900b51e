"""The critic of implicit Q-learning, as nets and steps that any extraction of a policy shares."""

from __future__ import annotations

from typing import Any

from surpass.critics.ensembles import critic, value
from surpass.forms import Train, adam, ema, train
from surpass.objectives.bellman import state_value, td
from surpass.objectives.value import expectile

__all__ = ["implicit_nets", "implicit_steps"]


def implicit_nets(
    hidden: tuple[int, ...] = (256, 256), polyak: float = 0.005, suffix: str = "", n: int = 2
) -> dict[str, Any]:
    """`v`, `q` and `q_target`, their names ending in `suffix`."""
    return {
        f"v{suffix}": value(1, hidden),
        f"q{suffix}": critic(n, hidden),
        f"q{suffix}_target": ema(f"q{suffix}", polyak),
    }


def implicit_steps(
    tau: float = 0.7, gamma: float = 0.99, lr: float = 3e-4, suffix: str = ""
) -> tuple[Train, Train]:
    """V toward the tau-expectile of Q over logged actions, then Q toward r + gamma V(s').

    Offline Reinforcement Learning with Implicit Q-Learning (2021).
    """
    v, q = f"v{suffix}", f"q{suffix}"
    return (
        train(v, expectile(tau, f"{q}_target", v), adam(lr)),
        train(q, td(state_value(v), gamma, q), adam(lr)),
    )
