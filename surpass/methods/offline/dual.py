"""Methods from dual problems: a value whose residual weighs the log, and a game against rewards."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.ensembles import critic, dual, value
from surpass.critics.transition_rewards import transition_reward
from surpass.errors import InputError
from surpass.forms import Learner, Stage, Stages, adam, ema, log, mix, project, train
from surpass.objectives.adversarial import adversarial, cloned_own, opposed
from surpass.objectives.descent import norm_ball, orthogonal
from surpass.objectives.dice import chi2_dice, forward_residual
from surpass.objectives.value import clone
from surpass.parts import stop
from surpass.policies.acting import mean, sampled
from surpass.policies.gaussian import gaussian
from surpass.registry import system

__all__ = ["mahalo", "odice"]

Hidden = tuple[int, ...]


@system("odice")
def odice(
    lam: float = 0.6, eta: float = 1.0, cap: float = 100.0, gradient: str = "orthogonal",
    gamma: float = 0.99, lr: float = 2e-4, tau: float = 0.005, scale: float | str = "range",
    norm: bool = True, batch: int = 256, hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """min (1 - lam) E[V(s)] + lam E[f*(r + gamma V(s') - V(s))], whose gradient through V(s') keeps
    what is orthogonal to that through V(s) ("semi" drops it, "true" keeps all).

    `scale` multiplies rewards, and how far apart residuals lie decides how few rows weigh: "range"
    takes a step's rewards to a range of about 1. A log of short episodes may want more.
    """
    rules = {
        "orthogonal": orthogonal("forward", "backward", eta),
        "semi": orthogonal("forward", "backward", 0.0),
        "true": None,
    }
    if gradient not in rules:
        raise InputError(f"odice has no gradient {gradient!r}; it has {', '.join(rules)}")
    return Learner(
        nets={
            "v": value(2, hidden, norm), "pi": gaussian(hidden, squashed=False),
            "v_target": ema("v", tau),
        },
        update=(
            train("v", chi2_dice(lam, gamma), adam(lr), gradient=rules[gradient]),
            train("pi", stop(forward_residual(cap, gamma)) * clone(),
                  adam(lr, weight_decay=1e-4)),
        ),
        act=mean(),
        explore=sampled(),
        source=log(batch, gamma=gamma, reward_scale=scale),
        discrete=False,
    )  # fmt: skip


@system("mahalo")
def mahalo(
    beta: float = 10.0, ratio: float = 1e5, radius: float = 100.0, gamma: float = 0.99,
    tau: float = 0.005, lr: float = 5e-4, slow: float = 5e-7, temperature: float = 1.0,
    bounds: tuple[float, float] = (-1e6, 1e6), batch: int = 512, warm: int = 100_000,
    steps: int = 1_000_000, hidden: Hidden = (256, 256, 256),
) -> Stages:  # fmt: skip
    """Critics and rewards that are jointly worst for the policy, relative to the log's actions,
    among those that fit the dynamics of "log" and the rewards of "labeled"; the policy moves a
    thousand times slower. Values that critics are fitted to stay within twice what `bounds` of
    rewards allow.

    Critics have to settle in the warm start: where they have not, the rewards that they are fitted
    to follow them rather than the other way round, and bad states come to look like others.

    The weight of its entropy starts at `temperature` and is learned as fast as the critics; it has
    to settle before the policy has moved, so that a short run with a faster policy starts lower.
    """
    half = batch // 2
    low, high = bounds
    limits = min(-1.0, 2.0 * low) / (1.0 - gamma), max(1.0, 2.0 * high) / (1.0 - gamma)
    nets = {
        "q": critic(2, hidden), "reward": transition_reward(hidden), "pi": gaussian(hidden),
        "alpha": dual(temperature), "q_target": ema("q", tau),
    }  # fmt: skip
    both = ("q", "reward")
    fitted = Learner(
        nets=nets,
        update=(
            train("pi", cloned_own(), adam(lr)),
            train(both, adversarial(beta, ratio, gamma, bounds, limits, opposing=False), adam(lr)),
        ),
        act=mean(),
        explore=sampled(),
        source=mix(batch, log=(0.5, log(half)), labeled=(0.5, log(half, role="labeled"))),
        discrete=False,
    )
    game = (
        train(both, adversarial(beta, ratio, gamma, bounds, limits), adam(lr)),
        project("q", norm_ball(radius)),
        train("pi", opposed(), adam(slow)),
        train("alpha", opposed(), adam(lr)),
    )
    return Stages((Stage(fitted, warm), Stage(replace(fitted, update=game), steps)))
