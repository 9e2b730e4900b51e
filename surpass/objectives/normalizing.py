"""Advantages of answers to one prompt by what they are centered at and divided by."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.advantage import Sequences, group_mean, over_decisions, spread
from surpass.objectives.reduce import decided, total
from surpass.parts import Part, part

__all__ = ["by_accuracy", "certainty_mixed", "normalized", "with_accuracy", "with_age"]


def _batch(score: Float[Tensor, "B"]) -> tuple[Tensor, Tensor]:
    """Mean and (unbiased) deviation over the batch of all workers."""
    count = total(torch.ones_like(score).sum())
    mean = total(score.sum()) / count
    square = total((score - mean).square().sum()) / (count - 1).clamp_min(1)
    return mean, square.sqrt()


@part(needs=("group",))
def normalized(
    seq: Sequences, /, center: str = "group", scale: str = "batch", eps: float = 1e-8
) -> Float[Tensor, "B T"]:
    """(R - mean) / (std + eps); `center` is "group", "batch" or "none", `scale` too.

    The deviation of a group is near 0 where a prompt is easy, and inflates noise there; that of the
    batch is not. "Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning" (2025), whose
    choice is the group's mean and the batch's deviation (of raw rewards, which is our reading).

    Raises:
        InputError: for another name.
    """
    for name, value in (("center", center), ("scale", scale)):
        if value not in ("group", "batch", "none"):
            raise InputError(f"{name}={value!r}: group, batch or none")
    score = seq.total
    mean, std = _batch(score)
    centers = {"group": lambda: group_mean(seq, score), "batch": lambda: mean, "none": lambda: 0.0}
    scales = {"group": lambda: spread(seq, score) + eps, "batch": lambda: std + eps,
              "none": lambda: 1.0}  # fmt: skip
    return over_decisions((score - centers[center]()) / scales[scale](), seq)


@part(needs=("group",))
def certainty_mixed(seq: Sequences, /, eps: float = 1e-6) -> Float[Tensor, "B T"]:
    """(1 - w) (R - m) / (s + eps) + w (R - m) / m with w = 1 - 4 p (1 - p), p the group's success
    rate, m and s its mean and deviation: z-scores where the outcome is uncertain, the relative
    deviation where it is not, so that nearly solved and nearly unsolved prompts are no mirror
    images. Rewards in [0, 1]; 0 where all failed. The deviation is the population's, so that a
    group of eight with one failure gives it -sqrt(7).

    "MAPO: Mixed Advantage Policy Optimization" (2025).
    """
    score = seq.total
    mean = group_mean(seq, score)
    apart = score - mean
    weight = 1 - 4 * mean * (1 - mean)
    z = apart / (spread(seq, score, unbiased=False) + eps)
    relative = torch.where(mean > 0, apart / mean.clamp_min(eps), torch.zeros_like(apart))
    return over_decisions((1 - weight) * z + weight * relative, seq)


@part
def with_accuracy(
    seq: Sequences, /, inner: Part[[Sequences], Any]
) -> dict[str, Float[Tensor, "B T"]]:
    """Another advantage, and the mean reward of the whole batch as a column `accuracy`."""
    found = inner(seq)
    columns = dict(found) if isinstance(found, dict) else {"advantage": found}
    mean, _ = _batch(seq.total)
    return {**columns, "accuracy": mean * torch.ones_like(seq.mask)}


@part
def with_age(seq: Sequences, /, inner: Part[[Sequences], Any]) -> dict[str, Float[Tensor, "B T"]]:
    """Another advantage, and how many batches ago each sequence was written as a column `age`."""
    found = inner(seq)
    columns = dict(found) if isinstance(found, dict) else {"advantage": found}
    age = torch.zeros_like(seq.mask)
    written = getattr(seq, "age", None)
    if written is not None:
        age = age + written[:, None].to(age.dtype)
    return {**columns, "age": age * decided(seq.mask)}


@part
def by_accuracy(s: Any, /) -> Float[Tensor, "B T"]:
    """(tanh(accuracy of the batch) + 1) / 2, from 0.5 to 0.88: a factor of a penalty, tighter the
    more is solved already.

    "FG-ExPO: Frontier-guided exploration-prioritized policy optimization via adaptive KL and
    Gaussian curriculum" (2026).
    """
    return (torch.tanh(s.extras["accuracy"]) + 1) / 2
