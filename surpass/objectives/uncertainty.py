"""How uncertain a decision is among those of its batch, and what may depend on it: the temperature
it is sampled at, how far its ratio may go, how much its advantage counts.

From "From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature" (2025),
HAPO.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, group_standardized, over_decisions, same_group
from surpass.objectives.divergence import entropy
from surpass.objectives.reduce import decided
from surpass.objectives.views import Steps
from surpass.parts import part

__all__ = [
    "Heat", "entropy_heat", "scale_of", "standing", "token_group_standardized", "uneven_clip",
]  # fmt: skip

LEAST = 1e-8


def scale_of(
    entropy: Float[Tensor, "..."], mask: Float[Tensor, "..."], quantile: float = 0.8
) -> tuple[Tensor, Tensor, Tensor]:
    """The pivot of log-entropies, their quantile over decided entries, and how far the highest
    lies above and the lowest below it: what `standing` divides by.

    The paper divides by the root mean square around the pivot first, which cancels.
    """
    own = mask > 0
    e = torch.where(own, entropy.clamp_min(LEAST).log(), torch.inf).flatten()
    ordered = e.sort().values
    place = (quantile * (own.sum() - 1).clamp_min(0)).round()
    here = torch.arange(len(ordered), device=e.device) == place
    pivot = torch.where(here & ordered.isfinite(), ordered, torch.zeros_like(ordered)).sum()
    apart = torch.where(e.isfinite(), e - pivot, torch.zeros_like(e))
    return pivot, apart.amax().clamp_min(LEAST), (-apart.amin()).clamp_min(LEAST)


def standing(
    entropy: Float[Tensor, "..."], scale: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "..."]:
    """-1 at the least and 1 at the most uncertain decision of the batch that the scale is of, 0 at
    its pivot, in between linear in log-entropy; held in [-1, 1].

    The released code divides what lies below the pivot by its negative minimum, which makes it
    positive and never lowers anything; here it is negative, as in the paper.
    """
    pivot, up, down = scale
    apart = entropy.clamp_min(LEAST).log() - pivot
    return torch.where(apart > 0, apart / up, apart / down).clamp(-1.0, 1.0)


# ----------------------------------------------------------------------------------- sampling


class Heat(NamedTuple):
    """T (1 + tau h), h the standing of a decision on the scale of an earlier batch: the temperature
    at which it is sampled. As it begins it changes nothing."""

    tau: float = 0.0
    pivot: float = 0.0
    up: float = 1.0
    down: float = 1.0

    def factor(self, entropy: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """What the temperature is multiplied by at decisions of these entropies."""
        scale = tuple(torch.as_tensor(x, device=entropy.device) for x in self[1:])
        return 1 + self.tau * standing(entropy, scale)  # type: ignore[arg-type]


@part
def entropy_heat(before: Float[Tensor, "N"], /, tau: float = 0.05, quantile: float = 0.8) -> Heat:
    """How warm the next batch is sampled, from the entropies of the last one's decisions: warmer
    where the policy is uncertain, cooler where it is not."""
    scale = scale_of(before, torch.ones_like(before), quantile)
    return Heat(tau, *(float(x) for x in scale))


# ----------------------------------------------------------------------------------- learning


@part(needs=("group",))
def token_group_standardized(
    seq: Sequences, /, eps: float = 1e-6, limit: float = 5.0
) -> Float[Tensor, "B T"]:
    """(R_i - m) / (s + eps), mean and (population) deviation of a group over all of its decisions,
    each answer counted as often as it is long: then a mean over tokens is centered.

    Groups in which some value reaches +-limit, such as those of one short success among long
    failures, take GRPO's advantage instead.
    """
    same = same_group(seq) * seq.length[None, :]
    count = same.sum(-1).clamp_min(1)
    score = seq.total
    mean = same @ score / count
    # sum of L_j (R_j - m_i)^2, with the mean of row i's group
    square = (same * (score[None, :] - mean[:, None]).square()).sum(-1) / count
    found = (score - mean) / (square.sqrt() + eps)
    far = same_group(seq) @ (found.abs() >= limit).to(found.dtype) > 0
    return torch.where(far[:, None], group_standardized()(seq), over_decisions(found, seq))


@part(needs=(entropy,))
def uneven_clip(
    s: Steps, /, low: float = 0.2, high: float = 0.2, widen: float = 1.0, lean: float = 1.0,
    quantile: float = 0.8, cap: float = 10.0,
) -> Float[Tensor, "B T"]:  # fmt: skip
    """The dual-clipped surrogate with bounds and an advantage of each decision's own, by its
    `standing` h among those of the (mini)batch of a process.

        h > 0:   bounds 1 - low,               1 + high (1 + widen h)
        h <= 0:  bounds 1 - low (1 + widen |h|),  1 + high
        A' = A (1 + lean h) where h > 0 and r is outside (1 - low' / 2, 1 + high' / 2), low' and
        high' the widths above, or h <= 0 and r is inside; else A.

    Uncertain decisions may rise further, certain ones fall further; uncertain ones that have moved
    count more, certain ones that have not count less.
    """
    h = standing(s.entropy.detach(), scale_of(s.entropy.detach(), s.mask, quantile))
    ratio, a = s.log_ratio.exp(), s.advantage
    below = low * (1 - widen * h.clamp(max=0.0))
    above = high * (1 + widen * h.clamp(min=0.0))
    now = ratio.detach()
    inside = (now > 1 - below / 2) & (now < 1 + above / 2)
    a = torch.where(inside == (h > 0), a, a * (1 + lean * h))
    inner = torch.minimum(ratio * a, torch.clamp(ratio, 1 - below, 1 + above) * a)
    loss = -torch.where(a < 0, torch.maximum(inner, cap * a), inner)
    return torch.where(decided(s.mask) > 0, loss, torch.zeros_like(loss))
