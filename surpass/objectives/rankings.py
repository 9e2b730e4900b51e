"""Whether a policy gives the preferred answer of a pair the higher likelihood.

lp is the log-probability of an answer, Delta = lp - lp_ref. Ranking, lp(y_w) > lp(y_l), is another
thing than the implicit reward's order, Delta(y_w) > Delta(y_l): a policy trained on pairs may get
nearly all of the second right and hardly more of the first than its reference.

"Preference Learning Algorithms Do Not Learn Preference Rankings" (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from surpass.errors import InputError
from surpass.parts import part

__all__ = ["RankedPairs", "Rankings", "flips", "ideal_margin", "ranking_accuracies"]


@dataclass(frozen=True)
class RankedPairs:
    """Log-probabilities of both answers of each pair, summed over their decisions, [N].

    Attributes:
        chosen, rejected: under the policy. ref_chosen, ref_rejected: under its reference.
        lengths: decisions of the chosen and of the rejected, [N, 2]; 1 where not given.
        proportion: how often people prefer the chosen, [N] in (0, 1), where labels are soft.
    """

    chosen: Float[Tensor, "N"]
    rejected: Float[Tensor, "N"]
    ref_chosen: Float[Tensor, "N"]
    ref_rejected: Float[Tensor, "N"]
    lengths: Any = None
    proportion: Any = None

    @property
    def margin(self) -> Float[Tensor, "N"]:
        """lp(y_w) - lp(y_l)."""
        return self.chosen - self.rejected

    @property
    def ref_margin(self) -> Float[Tensor, "N"]:
        """The same of the reference."""
        return self.ref_chosen - self.ref_rejected


class Rankings(NamedTuple):
    """Shares of pairs, and numbers per pair.

    Attributes:
        accuracy, by_mean: ranked right by the policy, by sums and by means per decision.
        reference: ranked right by the reference. implicit: of the implicit reward.
        ideal: what the optimum of the KL-regularized problem would rank right, by the proportion
            with which the chosen is preferred (the log's own under "log", where it has one).
        gap: the best of `ideal` less `accuracy`.
        table: [2, 2], the share by whether the reference (row) and the policy (column) are right.
        hardness: beta (lp_ref(y_l) - lp_ref(y_w)) of each pair, above 0 where the reference is
            wrong: DPO's loss has to fall below softplus(-hardness) before the order turns.
    """

    accuracy: float
    by_mean: float
    reference: float
    implicit: float
    ideal: dict[Any, float]
    gap: float
    table: Float[Tensor, "2 2"]
    hardness: Float[Tensor, "N"]


def ideal_margin(
    ref_margin: Float[Tensor, "N"], proportion: float | Tensor, beta: float
) -> Float[Tensor, "N"]:
    """lp*(y_w) - lp*(y_l) = lp_ref(y_w) - lp_ref(y_l) + log(a / (1 - a)) / beta."""
    a = torch.as_tensor(proportion, dtype=ref_margin.dtype)
    return ref_margin + torch.logit(a) / beta


def flips(loss: Float[Tensor, "N"], hardness: Float[Tensor, "N"]) -> Bool[Tensor, "N"]:
    """Whether a pair is ranked right, told by its DPO loss alone: loss <= softplus(-hardness)."""
    return loss <= F.softplus(-hardness)


@part
def ranking_accuracies(
    pairs: RankedPairs,
    /,
    beta: float = 0.1,
    proportions: tuple[float, ...] = (0.6, 0.75, 0.9, 0.99),
) -> Rankings:
    """What a policy ranks right, and what it could."""
    if len(pairs.chosen) == 0:
        raise InputError("there are no pairs to rank")
    if not beta > 0 or not all(0 < a < 1 for a in proportions):
        raise InputError("beta is above 0, and proportions lie between 0 and 1")
    lengths = torch.ones(len(pairs.chosen), 2) if pairs.lengths is None else pairs.lengths
    n = lengths.to(pairs.chosen.dtype).clamp_min(1)
    right, before = pairs.margin >= 0, pairs.ref_margin >= 0
    ideal: dict[Any, float] = {
        a: _share(ideal_margin(pairs.ref_margin, a, beta) > 0) for a in proportions
    }
    if pairs.proportion is not None:
        ideal["log"] = _share(ideal_margin(pairs.ref_margin, pairs.proportion, beta) > 0)
    accuracy = _share(right)
    table = torch.stack([
        torch.stack([((before == a) & (right == b)).double().mean() for b in (False, True)])
        for a in (False, True)
    ])  # fmt: skip
    return Rankings(
        accuracy, _share(pairs.chosen / n[:, 0] >= pairs.rejected / n[:, 1]), _share(before),
        _share(pairs.margin > pairs.ref_margin), ideal, max(ideal.values()) - accuracy, table,
        -beta * pairs.ref_margin,
    )  # fmt: skip


def _share(right: Bool[Tensor, "N"]) -> float:
    return float(right.double().mean())
