"""FamO2O: a policy for every balance of improvement and constraint, and a balance for every
state."""

from __future__ import annotations

from typing import Any

from surpass.critics.ensembles import dual
from surpass.forms import Learner, Stage, Stages, adam, log, replay, train
from surpass.methods.actor_critic import offline_then_online
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.balances import chosen, family_clone
from surpass.policies.family import at_balance, balance, family
from surpass.registry import system

__all__ = ["famo2o"]


@system("famo2o")
def famo2o(
    low: float = 1.0, high: float = 5.0, tau: float = 0.8, entropy: float = -0.5,
    gamma: float = 0.99, polyak: float = 0.005, lr: float = 3e-4, scale: float = 1.0,
    shift: float = 0.0, batch: int = 256, offline: int = 1_000_000, online: int = 1_000_000,
    hidden: tuple[int, ...] = (256, 256),
) -> Stages:  # fmt: skip
    """IQL whose policy is told the coefficient b that its logged actions are weighed with, even in
    [low, high] on the log; a net chooses b(s) for the highest Q, and online the policy learns with
    what it chose.

    The range has to hold the best fixed coefficient. Online it draws evenly from the log and what
    it has done since; rewards are scale r + shift in both stages. With `online` 0 it needs no task.
    """
    shape: dict[str, Any] = {"gamma": gamma, "reward_scale": scale, "reward_shift": shift}
    value, critic = implicit_steps(tau, gamma, lr)
    choice = train(("balance", "eta"), chosen(entropy), adam(lr))
    learner = Learner(
        nets={
            **implicit_nets(hidden, polyak), "pi": family(hidden),
            "balance": balance(low, high, hidden), "eta": dual(),
        },
        update=(value, choice, train("pi", family_clone(low, high), adam(lr)), critic),
        act=at_balance(),
        explore=at_balance(draw=True),
        source=log(batch, **shape),
        discrete=False,
    )  # fmt: skip
    if not online:
        return Stages((Stage(learner, offline),))
    adapted = train("pi", family_clone(None), adam(lr))
    return offline_then_online(
        learner, offline=offline, online=online, update=(value, choice, adapted, critic),
        source=replay(batch, 2_000_000, warm=0, begin_with="log", **shape),
    )  # fmt: skip
