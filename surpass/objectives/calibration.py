"""Confidence that ranks right above wrong: the area under the curve, and the advantage that raises
it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, over_decisions, same_group
from surpass.objectives.reduce import decided
from surpass.parts import part

__all__ = ["area_under_curve", "confidence", "ranked", "within_perplexity"]


def confidence(seq: Sequences) -> Float[Tensor, "B"]:
    """The mean log-probability of a sequence's decisions when it was sampled."""
    assert seq.behavior_logp is not None
    own = decided(seq.mask)
    held = torch.where(own > 0, seq.behavior_logp, torch.zeros_like(own))
    return held.sum(-1) / own.sum(-1).clamp_min(1)


def area_under_curve(score: Float[Tensor, "N"], right: Float[Tensor, "N"]) -> float:
    """The probability that a right answer scores above a wrong one, ties counted half; NaN where
    all are right or all wrong."""
    good, bad = score[right > 0.5], score[right <= 0.5]
    if not len(good) or not len(bad):
        return float("nan")
    apart = good[:, None] - bad[None, :]
    return float(((apart > 0).double() + 0.5 * (apart == 0).double()).mean())


@part(needs=("group",))
def ranked(
    seq: Sequences, /, tau: float = 0.6, success: float = 0.5, pairs: bool = False
) -> Float[Tensor, "B T"]:
    """The gradient of a logistic surrogate of the area under the curve of the confidence lp within
    a group: a right answer i gets the sum over wrong j of s((lp_j - lp_i) / tau) / tau, a wrong one
    minus the sum over right i of the same. Groups sum to 0; "right but unsure" and "wrong but sure"
    weigh most.

    `pairs` divides by the number of pairs over the group's size, so that the scale is that of
    standardized rewards. "Calibration-Aware Policy Optimization for Reasoning LLMs" (2026).
    """
    score, same = confidence(seq), same_group(seq)
    good = (seq.total > success).to(same.dtype)
    # pulled[i, j]: how much the right i wants to rise above the wrong j
    pulled = torch.sigmoid((score[None, :] - score[:, None]) / tau) / tau
    pulled = pulled * same * good[:, None] * (1 - good)[None, :]
    value = pulled.sum(1) - pulled.sum(0)
    if pairs:
        count = (same @ good) * (same @ (1 - good)) / same.sum(-1)
        value = value / count.clamp_min(1e-8)
    return over_decisions(value, seq)


@part(needs=("ref_logp",))
def within_perplexity(
    seq: Sequences, /, right: float = 2.5, wrong: float = 1.05, success: float = 0.5
) -> Float[Tensor, "B T"]:
    """1 at right answers whose perplexity under the reference is at most `right` (others were lucky
    guesses) and at wrong ones of at least `wrong` (others were scored unfairly), else 0: a factor
    of an advantage. Same paper as `ranked`; thresholds depend on the reference."""
    own = decided(seq.mask)
    logp = torch.where(own > 0, seq.extras["ref_logp"], torch.zeros_like(own))
    perplexity = (-logp.sum(-1) / own.sum(-1).clamp_min(1)).exp()
    good = seq.total > success
    return over_decisions(
        torch.where(good, perplexity <= right, perplexity >= wrong).to(own.dtype), seq
    )
