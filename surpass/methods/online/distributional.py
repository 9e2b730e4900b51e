"""SAC whose critic knows how returns vary: DSAC."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.ensembles import critic
from surpass.errors import InputError
from surpass.forms import Learner, adam, ema, replay, train
from surpass.methods.actor_critic import soft_actor_critic
from surpass.objectives.gaussian_returns import drawn_return, gaussian_td
from surpass.objectives.value import entropic, temperature
from surpass.registry import system

__all__ = ["dsac"]


@system("dsac")
def dsac(
    bound: float = 20.0, eps: float = 0.1, delay: int = 2, gamma: float = 0.99,
    tau: float = 0.005, lr: float = 1e-4, alpha_lr: float = 3e-4, batch: int = 256,
    warm: int = 10_000, per_step: float = 1.0, envs: int = 1,
    hidden: tuple[int, ...] = (256, 256, 256),
) -> Learner:  # fmt: skip
    """max E[Q(s, a) - alpha log pi(a|s)], N(Q, sigma^2) fitted to drawn soft returns by likelihood:
    one critic, whose steps are small where returns vary.

    Actor, temperature and both targets move at every `delay`-th update. `bound` is how far a
    target may lie from Q as far as sigma is concerned, in units of the return, and has to grow with
    the rewards; `eps` keeps small spreads from making huge steps. The released version's loss;
    layers have ReLU, where the paper's have GELU.
    """
    if bound <= 0 or eps < 0:
        raise InputError(f"bound={bound:g}, eps={eps:g}: bound is positive, eps not negative")
    if delay < 1:
        raise InputError(f"delay={delay}: the actor moves at every delay-th update, 1 or more")
    learner = soft_actor_critic(
        gaussian_td(drawn_return(), gamma, bound, eps), n=1, gamma=gamma, lr=lr, hidden=hidden,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip
    return replace(
        learner,
        nets={
            **learner.nets, "q": critic(1, hidden, head="gaussian"),
            "q_target": ema("q", tau, every=delay), "pi_target": ema("pi", tau, every=delay),
        },
        update=(
            learner.update[0],
            train("pi", entropic(), adam(lr), every=delay),
            train("alpha", temperature(), adam(alpha_lr), every=delay),
        ),
    )  # fmt: skip
