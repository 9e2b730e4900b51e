"""ReMix: old answers are used again at first; then the policy starts anew from where they brought
it, on fresh ones alone."""

from __future__ import annotations

from typing import Any

from surpass.forms import Adam, PolicyGradient, Stage, Stages, copy, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.divergence import entropy_bonus, k3, k3_to
from surpass.objectives.games import log_probs_of
from surpass.objectives.ratio import to_behavior
from surpass.objectives.reduce import token_mean
from surpass.objectives.trust import clip, shifted_clip
from surpass.parts import Number, linear
from surpass.registry import system

__all__ = ["remix"]


@system("remix")
def remix(
    switch: int = 50, replay: float = 0.4, oldest: int = 2, epochs: int = 2, hold: int = 50,
    eps: float = 0.2, beta: float = 1e-3, bonus: float = 0.0, group: int = 8, lr: Number = 1e-6,
    batch: int = 64, horizon: int = 256,
) -> Stages:  # fmt: skip
    """For `switch` batches, `epochs` steps each with a share `replay` of answers of the `oldest`
    last policies, held near the base model and the policy before, from 1:0 (`hold` batches long) to
    half and half; then GRPO, with the policy as it is now as the base.

    Of the paper's two versions this is GRPO's. Its window draws groups without replacement."""
    spent = {"steps": 50, "after": hold, "every": 10}
    convex = linear(1.0, 0.5, **spent) * k3() + linear(0.0, 0.5, **spent) * k3_to("previous")
    adam = Adam(lr, max_norm=1.0)

    def with_bonus(trust: Any) -> Any:
        return trust + bonus * entropy_bonus() if bonus else trust

    mixed = PolicyGradient(
        group_standardized(), with_bonus(shifted_clip(eps) + beta * convex), ratio=to_behavior(),
        reduce=token_mean(), signals=(log_probs_of("previous"),), epochs=epochs, optimizer=adam,
        nets={"reference": copy("policy"), "previous": copy("policy", every=epochs, lag=1)},
        source=rollouts(batch, horizon, group, replay=replay, oldest=oldest),
    )  # fmt: skip
    plain = PolicyGradient(
        group_standardized(), with_bonus(clip(eps, eps) + beta * k3()), reduce=token_mean(),
        nets={"reference": copy("policy")}, source=rollouts(batch, horizon, group), optimizer=adam,
    )  # fmt: skip
    return Stages((Stage(mixed, switch), Stage(plain)))
