"""Uni-O4: one clipped on-policy objective on the log and then online."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.dynamics import dynamics
from surpass.critics.ensembles import critic
from surpass.critics.state_values import state_values
from surpass.forms import (
    Learner,
    PolicyGradient,
    Stage,
    Stages,
    adam,
    best,
    copy,
    ema,
    log,
    resampled,
    train,
)
from surpass.methods.online.policy_gradients import ppo
from surpass.objectives.advantage import value_loss
from surpass.objectives.bellman import sarsa, td
from surpass.objectives.model_values import (
    change_likelihood,
    diverse_clones,
    gains,
    model_value,
    returns_loss,
    tilted_gain,
)
from surpass.objectives.trust import clip
from surpass.parts import linear
from surpass.policies.acting import mean, none
from surpass.policies.stochastic import stochastic
from surpass.registry import system

__all__ = ["uni_o4"]


@system("uni-o4")
def uni_o4(
    members: int = 4, omega: float = 0.7, eps: float = 0.25, diversity: float = 0.1,
    horizon: int = 1000, every: int = 100, gamma: float = 0.99, tau: float = 0.005,
    lr: float = 1e-4, fit_lr: float = 1e-4, online_lr: float = 2e-5, batch: int = 512,
    models: int = 7, values: int = 1_000_000,
    model: int = 500_000, cloning: int = 400_000, offline: int = 10_000, online: int = 1_000_000,
    envs: int = 8, hidden: tuple[int, ...] = (256, 256),
) -> Stages:  # fmt: skip
    """Diverse clones of the log; each improved by PPO's clipped objective on logged states, its old
    policy replaced only where a learned model says that the new one is better; PPO online from the
    best of them.

    V is fitted to logged returns, which end where a time limit cut the episode: give rewards a mean
    near 0, or what is cut off looks like a bad state.
    """
    names = tuple(f"pi{i}" for i in range(members))
    judged = best("policy", model_value(horizon), every)
    source, none_yet, fit = log(batch, gamma=gamma), none(), adam(fit_lr)
    value = {"value": state_values(hidden)}
    improve = PolicyGradient(
        tilted_gain(omega),
        clip(linear(eps, 0.0, steps=offline), linear(eps, 0.0, steps=offline)),  # type: ignore[arg-type]
        signals=(gains(),), source=resampled(batch), anchor=judged,
        optimizer=adam(linear(lr, 0.0, steps=offline), max_norm=0.5),
    )  # fmt: skip
    stages = [
        Learner({"q": critic(2, hidden), **value, "q_target": ema("q", tau)},
                (train("value", returns_loss(), fit), train("q", td(sarsa(), gamma), fit)),
                none_yet, source),
        Learner({"model": dynamics(models, hidden)}, (train("model", change_likelihood(), fit),),
                none_yet, source),
        Learner({n: stochastic(hidden, log_std=-0.5, bounded=True) for n in names},
                (train(names, diverse_clones(names, diversity), fit),), mean(names[0]), source),
        *(replace(improve, nets={"policy": copy(n), "chosen": judged}) for n in names),
        replace(ppo(lr=online_lr, gamma=gamma, entropy=0.01, envs=envs, minibatches=16,
                    hidden=hidden),
                nets={"policy": copy("chosen"), **value},
                also=(train("value", value_loss(), adam(10 * online_lr, max_norm=0.5)),)),
    ]  # fmt: skip
    lengths = (values, model, cloning, *(offline for _ in names), online)
    return Stages(tuple(Stage(f, n) for f, n in zip(stages, lengths, strict=True) if n))
