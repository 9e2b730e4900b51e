"""Policy gradients on flow generators: the noisy steps of the sampler are the decisions.

Hand in the trained flow as `policy` (`noisy(flow)` makes one of any flow net), and a task whose one
action is what is generated; the "from-log" recipes first learn the flow from a log.
"""

from __future__ import annotations

from surpass.forms import Learner, PolicyGradient, Stage, Stages, adam, copy, log, rollouts, train
from surpass.objectives.advantage import capped, group_standardized
from surpass.objectives.gaussian_decisions import mean_kl, normalized, per_stride
from surpass.objectives.trust import clip
from surpass.objectives.value import clone
from surpass.policies.acting import sampled
from surpass.policies.noisy_flow import noisy_flow
from surpass.registry import system

__all__ = ["dance_grpo", "flow_grpo", "flow_matching", "grpo_guard", "grpo_guard_from_log"]


@system("grpo-guard")
def grpo_guard(
    eps: float = 1e-4, lr: float = 3e-4, samples: int = 192, group: int = 24, epochs: int = 1,
    minibatches: int = 2, horizon: int = 1, beta: float = 0.0, ratio_norm: bool = True,
    reweigh: bool = True,
) -> PolicyGradient:  # fmt: skip
    """min(r A, clip(r) A) / |dt| at every noisy step, r normalized to one center and scale, one A
    for all of it. `eps` falls with the root of the number of dimensions (2e-6 for images);
    `horizon` is 1 where one thing is generated, else actions per episode."""
    trust = per_stride() * clip(eps, eps) if reweigh else clip(eps, eps)
    return PolicyGradient(
        capped(group_standardized(), 5.0), trust + beta * mean_kl() if beta else trust,
        ratio=normalized() if ratio_norm else None,
        nets={"reference": copy("policy")} if beta else {},
        source=rollouts(samples, horizon, group, paths=True),
        optimizer=adam(lr, max_norm=1.0), epochs=epochs, minibatches=minibatches,
    )  # fmt: skip


@system("grpo-guard:flow-grpo")
def flow_grpo(
    eps: float = 1e-4, lr: float = 3e-4, samples: int = 192, group: int = 24, epochs: int = 1,
    minibatches: int = 2, horizon: int = 1, beta: float = 0.04,
) -> PolicyGradient:  # fmt: skip
    """Flow-GRPO: the plain ratio, every step's loss as it is, and a KL to the flow at the start."""
    return grpo_guard(eps, lr, samples, group, epochs, minibatches, horizon, beta, False, False)


def flow_matching(
    steps: int = 10, noise: float = 0.7, constant: bool = False, shift: float = 3.0,
    lr: float = 1e-3, batch: int = 256, width: int = 128, blocks: int = 2,
) -> Learner:  # fmt: skip
    """The flow of a log's actions given its observations, with the sampler that learns later."""
    net = noisy_flow(steps, noise, constant, shift, hidden=width, blocks=blocks)
    return Learner(
        nets={"policy": net}, update=(train("policy", clone("policy"), adam(lr)),),
        act=sampled("policy"), source=log(batch), discrete=False,
    )  # fmt: skip


@system("grpo-guard:from-log")
def grpo_guard_from_log(
    eps: float = 1e-4, lr: float = 3e-4, updates: int = 3_000, generated: int = 20_000
) -> Stages:
    """The flow of a log, then its reward by GRPO-Guard."""
    improve = Stage(grpo_guard(eps, lr), generated)
    return Stages((Stage(flow_matching(), updates), improve))


@system("grpo-guard:dance")
def dance_grpo(
    eps: float = 1e-4, lr: float = 3e-4, updates: int = 3_000, generated: int = 20_000,
    noise: float = 0.3,
) -> Stages:  # fmt: skip
    """DanceGRPO's sampler: sigma is `noise` at every step; the ratio normalized all the same."""
    improve = Stage(grpo_guard(eps, lr), generated)
    return Stages((Stage(flow_matching(noise=noise, constant=True), updates), improve))
