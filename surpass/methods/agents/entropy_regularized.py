"""EPO: PPO or GRPO over many turns with an entropy bonus per turn and a corridor around the entropy
of the past."""

from __future__ import annotations

from typing import Any

from surpass.errors import InputError
from surpass.forms import Adam, PolicyGradient, copy, rollouts, train
from surpass.objectives.advantage import gae, group_standardized, value_loss, values, whitened
from surpass.objectives.divergence import entropy_bonus, k3
from surpass.objectives.entropy_corridor import each_turn, entropy_corridor
from surpass.objectives.reduce import token_mean
from surpass.objectives.trust import clip
from surpass.parts import Number, Part, exponential
from surpass.policies.token_nets import token_values
from surpass.registry import system

__all__ = ["epo", "epo_grpo"]


def _trust(
    bonus: Number, low: float, high: float, alpha: float, kind: str, decay: float, updates: int,
    eps: float, beta: float,
) -> Part[..., Any]:  # fmt: skip
    """clip - bonus (H - beta_k corridor), beta_k = 1 + exp(-decay k / (updates // 2)), and the
    penalty to the reference."""
    if not 0 <= low < high:
        raise InputError(f"low={low:g}, high={high:g}: no entropy is between; give 0 <= low < high")
    if not decay > 0 or updates < 2:
        raise InputError(f"decay={decay:g}, updates={updates}: give a decay above 0, and how many "
                         "updates are planned, 2 or more")  # fmt: skip
    fades = exponential(2.0, 1.0, steps=(updates // 2) / decay)
    held = entropy_bonus() + fades * entropy_corridor(low, high, alpha, kind)
    trust = clip(eps, eps) + bonus * (each_turn() * held)
    return trust + beta * k3() if beta else trust


@system("epo")
def epo(
    bonus: Number = 0.001, low: float = 0.0, high: float = 2.0, alpha: float = 0.1,
    kind: str = "hinge", decay: float = 2.0, updates: int = 150, eps: float = 0.2,
    beta: float = 0.01, lam: float = 1.0, lr: Number = 5e-6, value_lr: Number = 1e-5,
    epochs: int = 1, minibatches: int = 1, batch: int = 128, horizon: int = 256, turns: int = 30,
) -> PolicyGradient:  # fmt: skip
    """PPO - bonus (H - beta_k corridor), H averaged over episodes, their turns and their tokens, in
    this order: the bonus resists a collapse, the corridor an explosion of entropy.

    `low` = 0 leaves the corridor's lower half out. `updates` is how many are planned: beta_k falls
    from 2 toward 1. kind="constant" is the authors' code, which trains as the bonus alone. What
    invalid actions cost belongs into the reward. `horizon` is the longest turn.
    """
    return PolicyGradient(
        whitened(gae(1.0, lam)), _trust(bonus, low, high, alpha, kind, decay, updates, eps, beta),
        reduce=token_mean(), signals=(values(),),
        nets={"value": token_values(), **({"reference": copy("policy")} if beta else {})},
        also=(train("value", value_loss(), Adam(value_lr, max_norm=1.0)),),
        source=rollouts(batch, horizon, turns=turns), epochs=epochs, minibatches=minibatches,
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("epo:grpo")
def epo_grpo(
    bonus: Number = 0.001, low: float = 0.0, high: float = 2.0, alpha: float = 0.1,
    kind: str = "hinge", decay: float = 2.0, updates: int = 150, eps: float = 0.2,
    beta: float = 0.01, group: int = 8, lr: Number = 5e-6, epochs: int = 1, minibatches: int = 1,
    batch: int = 128, horizon: int = 256, turns: int = 30,
) -> PolicyGradient:  # fmt: skip
    """The same beside GRPO: advantages standardized in the group, no critic."""
    return PolicyGradient(
        group_standardized(), _trust(bonus, low, high, alpha, kind, decay, updates, eps, beta),
        reduce=token_mean(), nets={"reference": copy("policy")} if beta else {},
        source=rollouts(batch, horizon, group, turns=turns), epochs=epochs,
        minibatches=minibatches, optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
