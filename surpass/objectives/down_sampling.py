"""Which rollouts and which decisions of a batch are worth a backward pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, group_standardized
from surpass.objectives.divergence import entropy
from surpass.objectives.masks import largest
from surpass.objectives.reduce import decided
from surpass.objectives.views import Steps
from surpass.parts import Number, Part, part

__all__ = ["uncertain_decisions", "widest", "widest_spread"]


def widest(value: Float[Tensor, "N"], count: Float[Tensor, ""]) -> Float[Tensor, "N"]:
    """1 at the `count` entries of the largest variance, which are the k largest and count - k
    smallest for some k; found for all k at once by prefix sums, in N log N."""
    n = len(value)
    order = value.double().argsort(descending=True)
    ordered = value.double()[order]
    zero = ordered.new_zeros(1)
    sums = torch.cat([zero, ordered.cumsum(0)])
    squares = torch.cat([zero, ordered.square().cumsum(0)])
    k = torch.arange(n + 1, device=value.device)
    low = (n - (count.to(k.device) - k)).long()  # where the smallest ones begin
    fits = (k <= count) & (low >= k)
    at = low.clamp(0, n)
    total = sums + sums[-1] - sums[at]
    square = squares + squares[-1] - squares[at]
    spread = torch.where(fits, square / count - (total / count).square(), -torch.inf)
    best = torch.nn.functional.one_hot(spread.argmax(), n + 1)
    place = torch.arange(n, device=value.device)
    chosen = ((place < (best * k).sum()) | (place >= (best * at).sum())).to(value.dtype)
    return torch.zeros_like(value).scatter(0, order, chosen)


@part(needs=("group",))
def widest_spread(
    seq: Sequences, /, share: Number = 0.25,
    inner: Part[[Sequences], Any] = group_standardized(),
) -> Float[Tensor, "B"]:  # fmt: skip
    """1 at the `share` of sequences (at least two) whose advantages vary the most, over the whole
    batch. The advantage that is learned from is the form's, of all sequences: it is not
    standardized again.

    "Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy
    Optimization" (2025).
    """
    found = inner(seq)
    advantage = found["advantage"] if isinstance(found, dict) else found
    own = decided(seq.mask)
    each = (advantage * own).sum(-1) / own.sum(-1).clamp_min(1)
    count = (torch.as_tensor(share, device=each.device) * len(each)).round().clamp(2, len(each))
    return widest(each, count)


@part(needs=(entropy,))
def uncertain_decisions(s: Steps, /, share: Number = 0.2) -> Float[Tensor, "B T"]:
    """N / n at the n = `share` N decisions of the largest |A| H, H the entropy of the policy, else
    0: a factor of a loss whose mean over decisions then is that over the chosen ones. Same paper as
    `widest_spread`."""
    own = decided(s.mask)
    key = s.advantage.detach().abs() * s.entropy.detach()
    count = (torch.as_tensor(share, device=own.device) * own.sum()).floor().clamp_min(1)
    chosen = largest(key, own > 0, count)
    return chosen * own.sum() / chosen.sum().clamp_min(1)
