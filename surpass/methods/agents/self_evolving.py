"""Q-Evolve: an agent in words that improves on its own logged episodes."""

from __future__ import annotations

from typing import Any

from surpass.critics.commands import command_critic, text_value
from surpass.critics.process_rewards import process_rewards
from surpass.data.selecting import only
from surpass.forms import (
    Collect,
    Learner,
    Net,
    PolicyGradient,
    Repeat,
    Stage,
    Stages,
    Transform,
    adam,
    copy,
    ema,
    log,
    train,
)
from surpass.objectives.advantage import gae, recorded, whitened
from surpass.objectives.bellman import state_value, td
from surpass.objectives.divergence import k3
from surpass.objectives.text_turns import step_outcome, text_feedback
from surpass.objectives.trust import clip
from surpass.objectives.value import clone, expectile
from surpass.parts import Part
from surpass.policies.acting import sampled
from surpass.policies.commands import command_scorer
from surpass.registry import system

__all__ = ["q_evolve"]


@system("q-evolve")
def q_evolve(
    cycles: int = 2, episodes: int = 36, low: float = 0.3, high: float = 0.2, alpha: float = 0.01,
    tau: float = 0.8, gamma: float = 0.99, lam: float = 0.95, penalty: float = -0.1,
    polyak: float = 0.005, lr: float = 1e-3, step: float = 1e-3, batch: int = 128,
    cloning: int = 150, critic: int = 1000, improve: int = 150,
    weight: Part[..., Any] | None = step_outcome(), rule: Part[..., Any] | None = None,
    trust: Part[..., Any] | None = None, policy: Net = command_scorer(),
    nets: tuple[Net, Net] = (command_critic(2), text_value()),
) -> Stages:  # fmt: skip
    """Clone demonstrations; then each cycle collect `episodes`, fit an implicit critic to both,
    make its multi-step advantages process rewards, and improve the policy on the same log.

        V: expectile(tau) of Q,  Q: (r + text feedback) + gamma V(s'),  weighed by step_outcome
        A: GAE(gamma, lam) on r alone, standardized over the log
        pi: -min(ratio A, clip(ratio, 1 - low, 1 + high) A) + alpha KL(pi || clone)

    It needs a log of demonstrations and a text task to act in; the policy handed over is the
    trained net `policy`. The log of a cycle is the demonstrations and the episodes of that cycle.
    A reconstruction where the paper is silent: tau, gamma, lam, the bounds, alpha, penalties and
    learning rates are ours, and turns are counted from 1 in the weights.

    Args:
        weight: of the critic's losses; None weighs all rows alike. rule: the advantage of the log.
        trust: the loss per decision. policy, nets: the actor; Q and V.
        lr, step: learning rates of clone and critic, and of the improvement.
    """
    cloned = Learner({"policy": policy}, (train("policy", clone("policy"), adam(lr)),),
                     sampled("policy"), log(batch))  # fmt: skip
    errors = expectile(tau), td(state_value(), gamma)
    losses = errors if weight is None else tuple(weight * error for error in errors)
    judge = Learner(
        {"q": nets[0], "v": nets[1], "q_target": ema("q", polyak)},
        tuple(train(net, loss, adam(lr)) for net, loss in zip("vq", losses, strict=True)),
        sampled("policy"), log(batch), prepare=(text_feedback(penalty, penalty, penalty),),
    )  # fmt: skip
    better = PolicyGradient(
        recorded(), clip(low, high) + alpha * k3() if trust is None else trust, source=log(batch),
        anchor=copy("policy"), nets={"reference": copy("policy")}, optimizer=adam(step),
    )  # fmt: skip
    advantages = process_rewards(whitened(gae(gamma, lam)) if rule is None else rule)
    cycle = (
        Stage(Transform(only(source=1))), Collect("policy", episodes, "log"), Stage(judge, critic),
        Stage(Transform(advantages)), Stage(better, improve),
    )  # fmt: skip
    return Stages((Stage(cloned, cloning), Repeat(cycles, cycle)))
