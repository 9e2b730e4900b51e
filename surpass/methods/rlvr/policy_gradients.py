"""Policy gradients on whole answers or episodes: REINFORCE, RLOO, PPO, GRPO and its corrections.

They ask for sequences with rewards, and for groups of answers to one prompt or start; tokens and
controls alike.
"""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, copy, rollouts, train
from surpass.objectives.advantage import (
    batch_centered,
    gae,
    group_centered,
    group_standardized,
    kl_in_reward,
    leave_one_out,
    overlong,
    value_loss,
    values,
    whitened,
    with_signal,
)
from surpass.objectives.divergence import k3
from surpass.objectives.ratio import per_sequence
from surpass.objectives.reduce import sequence_mean, sum_over, token_mean
from surpass.objectives.trust import clip, ratio_loss
from surpass.parts import Number
from surpass.policies.token_nets import token_values
from surpass.registry import system

__all__ = ["dapo", "dr_grpo", "grpo", "gspo", "ppo_lm", "reinforce", "rloo"]


@system("reinforce")
def reinforce(
    lr: Number = 1e-6, batch: int = 64, horizon: int = 256, gamma: float = 1.0
) -> PolicyGradient:
    """The score function times the reward to go, less the mean return of the batch."""
    return PolicyGradient(batch_centered(gamma), ratio_loss(), reduce=sum_over(),
                          source=rollouts(batch, horizon),
                          optimizer=Adam(lr, max_norm=1.0))  # fmt: skip


@system("rloo")
def rloo(
    beta: float = 0.05, group: int = 4, lr: Number = 1e-6, batch: int = 64, horizon: int = 256
) -> PolicyGradient:
    """REINFORCE whose baseline is the mean reward of the other answers; the divergence from the
    reference is paid for in the reward."""
    return PolicyGradient(
        leave_one_out(), ratio_loss(), reduce=sum_over(),
        signals=(kl_in_reward(beta),) if beta else (),
        nets={"reference": copy("policy")} if beta else {},
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("ppo-lm")
def ppo_lm(
    eps: float = 0.2, lam: float = 0.95, beta: float = 0.05, lr: Number = 1e-6,
    value_lr: Number = 1e-5, epochs: int = 4, minibatches: int = 1, batch: int = 64,
    horizon: int = 256,
) -> PolicyGradient:  # fmt: skip
    """PPO with a value net of the model's own size and the divergence in the reward, as in RLHF."""
    return PolicyGradient(
        whitened(gae(1.0, lam)), clip(eps, eps),
        signals=((kl_in_reward(beta),) if beta else ()) + (values(),),
        nets={"value": token_values(), **({"reference": copy("policy")} if beta else {})},
        also=(train("value", value_loss(eps), Adam(value_lr, max_norm=1.0)),),
        epochs=epochs, minibatches=minibatches,
        source=rollouts(batch, horizon), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("grpo")
def grpo(
    eps: float = 0.2, beta: float = 0.04, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, epochs: int = 1, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """Advantages standardized in the group, PPO's clip, a k3 penalty to the reference."""
    return PolicyGradient(
        group_standardized(), clip(eps, eps) + beta * k3() if beta else clip(eps, eps),
        reduce=sequence_mean(), nets={"reference": copy("policy")} if beta else {},
        source=rollouts(batch, horizon, group), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("dr-grpo")
def dr_grpo(
    eps: float = 0.2, group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256,
    epochs: int = 1, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """GRPO without its two biases: no division by the deviation, a constant instead of the
    length."""
    return PolicyGradient(
        group_centered(), clip(eps, eps), reduce=sum_over(float(horizon)),
        source=rollouts(batch, horizon, group), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("dapo")
def dapo(
    low: float = 0.2, high: float = 0.28, cache: int = 0, group: int = 8, lr: Number = 1e-6,
    batch: int = 64, horizon: int = 256, epochs: int = 1, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """Clip-higher, tokens counted alike, groups without signal replaced, soft punishment of the
    last `cache` tokens of the horizon."""
    return PolicyGradient(
        group_standardized(), clip(low, high), reduce=token_mean(), select=with_signal(),
        signals=(overlong(horizon, cache),) if cache else (),
        source=rollouts(batch, horizon, group, refill=4), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("gspo")
def gspo(
    low: float = 3e-4, high: float = 4e-4, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, epochs: int = 1, minibatches: int = 4,
) -> PolicyGradient:  # fmt: skip
    """GRPO whose ratio, and so whose clip, is that of whole sequences, by geometric mean."""
    return PolicyGradient(
        group_standardized(), clip(low, high), ratio=per_sequence(), reduce=sequence_mean(),
        source=rollouts(batch, horizon, group), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
