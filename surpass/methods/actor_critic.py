"""The shapes that actor-critic recipes share: what trains a policy beside its critics, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from surpass.critics.ensembles import critic, dual
from surpass.forms import Learner, Source, Stage, Stages, adam, ema, log, train
from surpass.objectives.bellman import clipped_double, soft, td
from surpass.objectives.value import entropic
from surpass.policies.acting import mean, noisy, sampled
from surpass.policies.deterministic import deterministic
from surpass.policies.gaussian import gaussian

__all__ = ["offline_then_online", "soft_actor_critic", "twin_delayed"]

Hidden = tuple[int, ...]


def twin_delayed(
    actor: Any,
    backup: Any = clipped_double(),
    *,
    gamma: float = 0.99,
    tau: float = 0.005,
    lr: float = 3e-4,
    actor_lr: float | None = None,
    delay: int = 2,
    hidden: Hidden = (256, 256),
    norm: bool = False,
    actor_norm: bool = False,
    dropout: float = 0.0,
    source: Source | None = None,
    prepare: tuple[Any, ...] = (),
    extra: Mapping[str, Any] | None = None,
) -> Learner:
    """TD3: twin critics at every update, actor and targets at every `delay`-th; `actor` is the
    actor's loss, `backup` the value of the next state.

    Addressing Function Approximation Error in Actor-Critic Methods (2018).
    """
    return Learner(
        nets={
            "q": critic(2, hidden, norm),
            "pi": deterministic(hidden, actor_norm, dropout),
            "q_target": ema("q", tau, every=delay),
            "pi_target": ema("pi", tau, every=delay),
            **(extra or {}),
        },
        update=(
            train("q", td(backup, gamma), adam(lr)),
            train("pi", actor, adam(actor_lr or lr), every=delay),
        ),
        act=mean(),
        explore=noisy(0.1),
        source=log(normalize=True, gamma=gamma) if source is None else source,
        prepare=prepare,
        discrete=False,
    )


def soft_actor_critic(
    critic_loss: Any = None,
    *,
    n: int = 2,
    gamma: float = 0.99,
    tau: float = 0.005,
    lr: float = 3e-4,
    actor_lr: float | None = None,
    hidden: Hidden = (256, 256),
    norm: bool = False,
    over: str = "min",
    target_entropy: float | None = None,
    source: Source | None = None,
) -> Learner:
    """SAC: n critics, a squashed Gaussian and its temperature, in one update.

    Soft Actor-Critic Algorithms and Applications (2018).
    """
    loss = td(soft(), gamma) if critic_loss is None else critic_loss
    return Learner(
        nets={
            "q": critic(n, hidden, norm),
            "pi": gaussian(hidden),
            "alpha": dual(),
            "q_target": ema("q", tau),
        },
        update=(
            train("q", loss, adam(lr)),
            train(("pi", "alpha"), entropic(over, target=target_entropy), adam(actor_lr or lr)),
        ),
        act=mean(),
        explore=sampled(),
        source=log(gamma=gamma) if source is None else source,
        discrete=False,
    )


def offline_then_online(
    learner: Learner, *, offline: int, online: int, source: Source, **changes: Any
) -> Stages:
    """The learner on its log, then on `source`; `changes` are fields that differ online."""
    after = replace(learner, source=source, **changes)
    return Stages((Stage(learner, offline), Stage(after, online)))
