"""Groups of answers to one prompt: advantages that depend on the group's success rate, and which
answers of a group are learned from.

Rewards are 0 or 1, or in [0, 1]; a group stays on one worker.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import (
    Sequences,
    group_centered,
    group_mean,
    leave_one_out,
    over_decisions,
    same_group,
)
from surpass.objectives.reduce import total
from surpass.parts import Part, part

__all__ = [
    "accepted_mean", "amplified", "centered_over", "no_more_failures", "posterior",
    "success_power", "weighted_up",
]  # fmt: skip


@part(needs=("group",))
def amplified(
    seq: Sequences, /, inner: Part[[Sequences], Tensor] = leave_one_out(), q: float = 0.75
) -> Float[Tensor, "B T"]:
    """`inner` times P^(-q), P the group's mean reward; 0 in groups without success.

    The gradient of -log_q P, log_q(u) = (u^(1-q) - 1) / (1 - q). "How Fast Should a Model Commit to
    Supervision? Training Reasoning Models on the Tsallis Loss Continuum" (2026).
    """
    rate = group_mean(seq, seq.total)
    factor = torch.where(rate > 0, rate.clamp_min(1e-8) ** -q, torch.zeros_like(rate))
    return factor[:, None] * inner(seq)


@part(needs=("group",))
def success_power(seq: Sequences, /, power: float = 0.25) -> Float[Tensor, "B T"]:
    """P^power at every decision of groups with success, 0 in others; times the share of such
    groups, so that a mean over what `posterior` kept is one over all prompts."""
    rate = group_mean(seq, seq.total)
    some = (rate > 0).to(rate.dtype)
    share = total(some.sum()) / total(torch.ones_like(some).sum())
    return over_decisions(some * rate.clamp_min(1e-8) ** power * share, seq)


@part(needs=("group",))
def posterior(seq: Sequences, /) -> Float[Tensor, "B"]:
    """How often each answer is drawn when as many as its group has are redrawn in proportion to
    their rewards: answers given that they are right. 0 in groups without success."""
    weight = seq.total.clamp_min(0)
    same = same_group(seq)
    some = same @ weight > 0
    # The largest of log-weights with Gumbel noise is a draw in proportion to the weights.
    noise = -torch.log(-torch.log(torch.rand_like(same).clamp(1e-12, 1 - 1e-7)))
    score = torch.where(
        (same > 0) & (weight > 0), weight.clamp_min(1e-30).log() + noise, -torch.inf
    )
    drawn = torch.nn.functional.one_hot(score.argmax(-1), len(weight)).to(weight.dtype)
    return (drawn * some[:, None]).sum(0)


@part(needs=("group",))
def weighted_up(
    seq: Sequences,
    /,
    inner: Part[[Sequences], Tensor] = group_centered(),
    temperature: float = 1.0,
) -> Float[Tensor, "B T"]:
    """A exp(A / temperature): answers better than their group count more than worse ones.

    RED-Weight of "Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm" (2025).
    """
    a = inner(seq)
    return a * (a / temperature).exp()


@part(needs=("group",))
def no_more_failures(seq: Sequences, /, success: float = 0.5) -> Float[Tensor, "B"]:
    """1 at every success, and at no more failures of the group than it has successes (the first
    ones, which is a random choice); all of a group of failures is dropped.

    RED-Drop, same paper as `weighted_up`.
    """
    same = same_group(seq)
    good = (seq.total > success).to(same.dtype)
    place = torch.arange(len(good), device=good.device)
    before = (place[None, :] < place[:, None]).to(same.dtype)
    failed = (same * before) @ (1 - good)  # failures of the group before each row
    return torch.where(good > 0, good, (failed < same @ good).to(good.dtype))


@part(needs=("group",))
def centered_over(
    seq: Sequences, /, keep: Part[[Sequences], Tensor] = no_more_failures()
) -> Float[Tensor, "B T"]:
    """R - the mean of R over those of the group that `keep` keeps, 0 at the others."""
    weight = keep(seq)
    same = same_group(seq)
    mean = same @ (weight * seq.total) / (same @ weight).clamp_min(1e-8)
    return over_decisions((weight > 0) * (seq.total - mean), seq)


@part
def accepted_mean(seq: Sequences, /, success: float = 0.5) -> Float[Tensor, "B T"]:
    """B / (m n_i) at the n_i accepted answers of each of m groups, whatever the groups' sizes: the
    mean over sequences then is the mean over prompts of the mean over accepted answers, unbiased
    for the gradient of log P(success) where something was accepted.

    "Optimizing Chain-of-Thought Reasoners via Gradient Variance Minimization in Rejection Sampling
    and RL" (2025).
    """
    same = same_group(seq)
    good = (seq.total > success).to(same.dtype)
    rows, groups = total(torch.ones_like(good).sum()), total((1 / same.sum(-1)).sum())
    return over_decisions(good / (same @ good).clamp_min(1) * rows / groups, seq)
