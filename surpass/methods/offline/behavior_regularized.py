"""TD3 that stays near logged actions: those of the same state, or of the nearest one."""

from __future__ import annotations

from surpass.critics.neighbors import nearest_action
from surpass.forms import Learner, log
from surpass.methods.actor_critic import twin_delayed
from surpass.objectives.bellman import behavior_penalized
from surpass.objectives.value import clone, maximize, near
from surpass.registry import system

__all__ = ["prdc", "rebrac", "td3_bc"]


@system("td3-bc")
def td3_bc(
    alpha: float = 2.5, gamma: float = 0.99, lr: float = 3e-4, batch: int = 256,
    hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """max alpha Q(s, pi(s)) / mean |Q| - mean (pi(s) - a)^2."""
    return twin_delayed(
        maximize(scale=alpha) + clone(),
        gamma=gamma,
        lr=lr,
        hidden=hidden,
        source=log(batch, normalize=True, gamma=gamma),
    )


@system("rebrac")
def rebrac(
    actor: float = 0.01, critic: float = 0.01, gamma: float = 0.99, lr: float = 1e-3,
    batch: int = 1024,
) -> Learner:  # fmt: skip
    """TD3+BC with a penalty on the critic's side too, deeper nets and LayerNorm in the critics."""
    return twin_delayed(
        maximize(scale=1.0, over="min") + actor * clone("pi", "sum"),
        behavior_penalized(critic),
        gamma=gamma,
        lr=lr,
        hidden=(256, 256, 256),
        norm=True,
        source=log(batch, gamma=gamma),
    )


@system("prdc")
def prdc(
    alpha: float = 2.5, beta: float = 2.0, gamma: float = 0.99, lr: float = 3e-4, batch: int = 256,
    hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """TD3+BC toward the action of the logged pair nearest to (beta s, pi(s))."""
    return twin_delayed(
        maximize(scale=alpha) + near(nearest_action(beta)),
        gamma=gamma,
        lr=lr,
        hidden=hidden,
        source=log(batch, normalize=True, gamma=gamma),
    )
