"""From a loss per decision to one number, and sums that hold across workers.

Every reduction is linear in the loss, with weights that depend on masks and groups only. Under data
parallelism gradients are averaged over workers, so a local sum is multiplied by their number and
divided by the sum of denominators over all of them: the result is that of one large batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import Steps
from surpass.parts import Part, part

__all__ = [
    "decided", "masked_mean", "of_source", "sequence_mean", "share", "sum_over", "token_mean",
    "total", "weighted_mean", "workers",
]  # fmt: skip


def workers() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum of a statistic over all workers, without gradient."""
    value = value.detach()
    if workers() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def share(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator of the batch of all workers, scaled so that averaging the gradients
    of the workers gives the gradient of the whole; 0 where nothing was decided."""
    return workers() * numerator / total(denominator).clamp_min(1e-8)


def decided(mask: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """1 where the policy decided; a mask may carry weights of sequences."""
    return (mask > 0).to(mask.dtype)


def masked_mean(value: Float[Tensor, "B T"], mask: Float[Tensor, "B T"]) -> Float[Tensor, ""]:
    """The mean over decided entries of all workers, without gradient through the mask."""
    kept = torch.where(mask > 0, value, torch.zeros_like(value))
    return share((kept * mask).sum(), mask.sum())


def weighted_mean(
    value: Float[Tensor, "B"], weight: Float[Tensor, "B"] | None = None
) -> Float[Tensor, ""]:
    """The mean over rows of all workers, with weights where given."""
    weight = torch.ones_like(value) if weight is None else weight
    return share((weight * value).sum(), weight.sum())


@part
def token_mean(s: Steps, /) -> Float[Tensor, ""]:
    """sum of m l / sum of m over the whole batch: every decision counts alike.

    From "DAPO: An Open-Source LLM Reinforcement Learning System at Scale" (2025); it is also what
    supervised training does.
    """
    return masked_mean(s.loss, s.mask)


@part
def sequence_mean(s: Steps, /) -> Float[Tensor, ""]:
    """The mean over sequences of each one's mean over its decisions: every sequence counts alike.

    From "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models"
    (2024). Sequences without a decision count in neither mean.
    """
    own = decided(s.mask)
    loss = torch.where(own > 0, s.loss, torch.zeros_like(s.loss))
    lengths = own.sum(-1)
    weight = s.mask.amax(-1)
    return share((weight * loss.sum(-1) / lengths.clamp_min(1)).sum(), weight.sum())


@part
def sum_over(s: Steps, /, longest: float = 0.0) -> Float[Tensor, ""]:
    """The mean over sequences of sum of m l / `longest`, a constant: no bias by length.

    `longest = 0` takes the width of the batch. From "Understanding R1-Zero-Like Training: A
    Critical Perspective" (2025), Dr. GRPO.
    """
    loss = torch.where(s.mask > 0, s.loss, torch.zeros_like(s.loss)) * s.mask
    width = longest if longest > 0 else float(s.mask.shape[-1])
    return share(loss.sum() / width, s.mask.amax(-1).sum())


@part
def of_source(
    s: Steps, /, name: str = "own", inner: Part[[Steps], Tensor] = token_mean()
) -> Float[Tensor, ""]:  # fmt: skip
    """A reduction over the sequences of one source only, so that each is averaged over its own
    share of the batch: `(1 - mu) * of_source("own") + mu * of_source("expert")`.

    Raises:
        InputError: when the batch has no such source.
    """
    if name not in s.sources:
        raise InputError(
            f"of_source names {name!r}, but the batch has the sources {', '.join(s.sources)}"
        )
    if s.source is None:
        return inner(s)
    here = (s.source == s.sources.index(name)).to(s.mask.dtype)
    return inner(s.filled(mask=s.mask * here[:, None]))
