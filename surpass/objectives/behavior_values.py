"""Terms of values of the behavior policy, which is improved once, when it acts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["ranked"]


@part(needs=("return_to_go",))
def ranked(
    nets: Nets, rows: Rows, /, margin: float = 0.05, beta: float = 2.0, cap: float = 20.0,
    q: str = "q",
) -> Float[Tensor, "B"]:  # fmt: skip
    """w(s) sum_{i != a} max(Q(s, a_i) - Q(s, a) + margin, 0)^2, summed over the ensemble: the
    logged action is to stand above all others, most of all where the episode went well.

    w(s) = min(exp((G - mean G) / beta), cap), G the logged return from the step on and the mean
    that of the batch: give rewards a size at which returns differ by about 1.

    Regularized Behavior Value Estimation (R-BVE, 2021). The cap is ours.
    """
    values = nets[q].all(rows.obs)  # [n, B, A]
    index = rows.action.long()[None, :, None].expand(values.shape[0], -1, 1)
    logged = values.gather(-1, index)
    above = (values - logged + margin).clamp(min=0.0).square()
    other = torch.ones_like(values).scatter(-1, index, 0.0)
    weight = ((rows.return_to_go - rows.return_to_go.mean()) / beta).exp().clamp(max=cap)
    return weight * (above * other).sum(-1).sum(0)
