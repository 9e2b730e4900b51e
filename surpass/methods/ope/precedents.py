"""A guardrail that judges content by precedents of each policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.precedents import Judge, Precedents, revised
from surpass.forms import Study
from surpass.parts import part
from surpass.registry import system

__all__ = ["Content", "Verdicts", "by_precedents", "collected", "precedent_guardrail"]


class Content(NamedTuple):
    """What is judged: attribute probabilities [n, d], and the precedents of each policy by name."""

    shown: Float[Tensor, "n d"]
    policies: Mapping[str, Precedents]


class Verdicts(NamedTuple):
    """P(violation) of each policy [n, P], whether the content is blocked [n], and the nearest
    precedent of the policy that is most likely violated [n]."""

    probability: Float[Tensor, "n P"]
    blocked: Tensor
    policy: tuple[str, ...]
    precedent: Tensor


@part
def by_precedents(
    content: Content, /, judge: Judge, k: int = 16, threshold: float = 0.5
) -> Verdicts:
    """Block where any policy's probability, read from its k nearest precedents, is above the
    threshold."""
    names = list(content.policies)
    with torch.no_grad():
        columns = [judge.judged(content.shown, content.policies[n], k) for n in names]
    p = torch.stack(columns, 1)
    top = p.argmax(1).tolist()
    nearest = [
        int(content.policies[names[j]].nearest(row[None], 1)[0, 0])
        for j, row in zip(top, content.shown, strict=True)
    ]
    blocked = p.max(1).values > threshold
    return Verdicts(p, blocked, tuple(names[j] for j in top), torch.tensor(nearest))


@system("precedent-guardrail")
def precedent_guardrail(judge: Judge | None = None, k: int = 16, threshold: float = 0.5) -> Study:
    """Judge content against user-defined policies by stored cases: a policy is added, edited or
    removed by adding, swapping or removing cases.

        judge = train_judge([revised(...), ...])      # once, on any policies
        study = surpass.precedent_guardrail(judge)
        study.measure(Content(detector(pictures).sigmoid(), {"no red borders": cases}))

    Args:
        judge: from `surpass.critics.precedents.train_judge`; an untrained one when None.
        k: precedents of each policy that are read. threshold: of the block.
    """
    return Study(by_precedents(judge or Judge(), k, threshold))


def collected(
    judge: Judge, shown: Float[Tensor, "m d"], label: Float[Tensor, "m"], revise: bool = True
) -> Precedents:
    """Cases with their rationales: at first all attributes that are shown; then revised until they
    lead to the label on their own."""
    cases = Precedents(shown, label, (shown > 0.5).float())
    return revised(judge, cases) if revise else cases
