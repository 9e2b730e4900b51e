"""Turns that are paid for what they taught the policy about the right answer."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, copy, rollouts
from surpass.objectives.divergence import k3
from surpass.objectives.reduce import sequence_mean
from surpass.objectives.trust import clip
from surpass.objectives.turns import turn_credit
from surpass.parts import Number
from surpass.policies.beliefs import information_gain
from surpass.registry import system

__all__ = ["igpo"]


@system("igpo-info-gain")
def igpo(
    belief: str = "logprob", normalize: str = "apart", gamma: float = 1.0, eps: float = 0.2,
    beta: float = 0.001, group: int = 16, lr: Number = 1e-6, batch: int = 512,
    horizon: int = 256, turns: int = 10, lead: str = "", close: str = "",
) -> PolicyGradient:  # fmt: skip
    """GRPO with a reward per turn: how much it raised the policy's own belief in the right answer;
    gains and final scores are standardized apart, and summed from each turn on.

    Data need the right answers; `lead` and `close` are what the policy writes around one. `horizon`
    is the longest turn. belief="prob" and normalize="position" are the first version's.
    """
    return PolicyGradient(
        turn_credit(gamma, normalize), clip(eps, eps) + beta * k3() if beta else clip(eps, eps),
        reduce=sequence_mean(), signals=(information_gain(belief),),
        nets={"reference": copy("policy")} if beta else {},
        source=rollouts(batch, horizon, group, turns=turns, answer=(lead, close)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
