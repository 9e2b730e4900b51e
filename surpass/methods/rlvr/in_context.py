"""ICPO: answers that the model gives when it is shown solved examples, learned without them."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch

from surpass.errors import InputError
from surpass.forms import Adam, PolicyGradient, copy, rollouts
from surpass.objectives.advantage import at_last, group_standardized, with_reward
from surpass.objectives.divergence import k3
from surpass.objectives.reduce import token_mean
from surpass.objectives.trust import dual_clip
from surpass.objectives.unified import shaped, unified
from surpass.parts import Nets, Number, by_source, linear, part
from surpass.registry import system
from surpass.training.language_rollouts import Fresh, with_expert

__all__ = ["icpo", "shown_examples", "steered_bonus"]


@part
def shown_examples(fresh: Fresh, /, shots: int = 1, count: int = 1, least: float = 1.0) -> Fresh:
    """To each group, `count` answers drawn behind `shots` random solved examples, prompt and
    answer, of those the caller hands in; only those of a reward of `least` or more stay, without
    the examples, as the source "steered". All are charged.

    Raises:
        InputError: where no examples were handed in.
    """
    if not hasattr(fresh.expert, "examples"):
        raise InputError("the recipe shows solved examples; give expert=..., demonstrations")
    seq = fresh.sequences
    assert seq.group is not None
    first = (seq.group[:, None] == seq.group[None, :]).int().argmax(-1).unique().tolist()
    examples = fresh.expert.examples(len(first) * count * shots)
    texts = [
        torch.cat([p[pm > 0], a[am > 0]]).tolist()
        for p, pm, a, am in zip(examples.prompt, examples.prompt_mask, examples.action,
                                examples.mask, strict=True)
    ]  # fmt: skip
    shown = [list(chain(*texts[i : i + shots])) for i in range(0, len(texts), shots)]
    answers, _ = fresh.more(first, [count] * len(first), shown)
    return with_expert(fresh, answers[answers.total >= least], "steered")


@part
def steered_bonus(nets: Nets, seq: Any, /, weight: Number = 1.0) -> Any:
    """`weight` more reward for answers of the source "steered"."""
    steered = (seq.source == 1).to(seq.reward.dtype)
    return with_reward(seq, seq.reward + at_last(seq, weight * steered))


@system("icpo")
def icpo(
    shots: int = 1, bonus: float = 1.0, over: int = 400, lam: float = 0.1, least: float = 1.0,
    to_behavior: bool = False, low: float = 0.2, high: float = 0.2, beta: float = 1e-3,
    group: int = 7, lr: Number = 1e-6, batch: int = 448, horizon: int = 256, minibatches: int = 2,
) -> PolicyGradient:  # fmt: skip
    """Groups of `group` plain answers and one that was shown `shots` examples, kept if right, with
    a bonus that fades over so many updates; of these tokens the ratio is p / (p + lam).

    p is the token's probability without examples, as in the released code; `to_behavior` divides
    it by that with them. Answers that fail are dropped, as in the paper; the released code keeps
    them (`least=0`).
    """
    return PolicyGradient(
        group_standardized(),
        by_source(own=dual_clip(low, high),
                  steered=unified(denominator=shaped(lam, to_behavior))) + beta * k3(),
        reduce=token_mean(), minibatches=minibatches, nets={"reference": copy("policy")},
        signals=(steered_bonus(linear(bonus, 0.0, steps=over)),) if bonus else (),
        source=rollouts(batch, horizon, group, then=(shown_examples(shots, least=least),)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
