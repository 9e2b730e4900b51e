"""SAC Flow: a flow policy trained end to end by SAC, as a recurrence over its steps."""

from __future__ import annotations

import math
from dataclasses import replace

from surpass.critics.ensembles import dual
from surpass.forms import Learner, Stages, adam, log, mix, replay, train
from surpass.methods.actor_critic import offline_then_online, soft_actor_critic
from surpass.objectives.bellman import soft, td
from surpass.objectives.value import clone, entropic
from surpass.policies.recurrent_flow import recurrent_flow
from surpass.registry import system

__all__ = ["sac_flow", "sac_flow_pretrained"]


@system("sac-flow")
def sac_flow(
    steps: int = 4, velocity: str = "gated", entropy: float = 0.0, alpha: float = 0.2,
    log_std: tuple[float, float] = (-5.0, 2.0), gamma: float = 0.99, lr: float = 3e-4,
    batch: int = 256, warm: int = 1_000, per_step: float = 1.0, envs: int = 1, width: int = 256,
    hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """SAC, its gradient through all `steps` of a flow; log pi is that of the noisy path. `velocity`
    is "gated" (v = z (h - x), Flow-G), "decoder" (a transformer's, Flow-T) or "plain".

    A path's entropy can grow with every step, far above `entropy`, until the temperature has fallen
    from `alpha`: start it low where rewards are small.
    """
    base = soft_actor_critic(
        gamma=gamma, lr=lr, hidden=hidden,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip
    actor = train(("pi", "alpha"), entropic(target=entropy), adam(lr))
    pi = recurrent_flow(steps, width, velocity, log_std)
    nets = {**base.nets, "pi": pi, "alpha": dual(alpha)}
    return replace(base, nets=nets, update=(base.update[0], actor))


@system("sac-flow:pretrained")
def sac_flow_pretrained(
    offline: int = 100_000, online: int = 250_000, near: float = 1.0, temperature: float = 0.01,
    noise: float = 0.1, steps: int = 4, velocity: str = "gated", gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256, width: int = 256, hidden: tuple[int, ...] = (256, 256),
    warm: int = 5_000,
) -> Stages:  # fmt: skip
    """The velocity by flow matching on the log; then, on log and replay, which the policy fills for
    `warm` steps first, near |a - a_b|^2 - Q + temperature log pi with noise of one size. (What is
    left of a path's entropy then is the tanh's, so that no temperature could be tuned to a
    target.)"""
    sigma = math.log(noise)
    learner = sac_flow(
        steps, velocity, log_std=(sigma, sigma), gamma=gamma, lr=lr, width=width, hidden=hidden
    )
    value = train("q", td(soft(entropy=False), gamma), adam(lr))
    learner = replace(
        learner,
        nets={name: net for name, net in learner.nets.items() if name != "alpha"},
        update=(value, train("pi", clone(), adam(lr))),
        source=log(batch, gamma=gamma),
    )
    tuned = train("pi", entropic(fixed=temperature, near=near), adam(lr))
    half = batch // 2
    own = replay(batch - half, warm=warm, warm_with="policy")
    return offline_then_online(
        learner, offline=offline, online=online, update=(value, tuned),
        source=mix(batch, log=(0.5, log(half)), replay=(0.5, own)),
    )  # fmt: skip
