"""How large the gradient of each answer's log-probability is."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.advantage import with_columns
from surpass.parts import Nets, part
from surpass.policies.language import LanguagePolicy, tokens_of
from surpass.policies.token_logps import head_squares

__all__ = ["score_squares", "squares_of"]


def squares_of(policy: LanguagePolicy, seq: Any, layer: str = "head") -> Float[Tensor, "B"]:
    """|grad log pi(y_i | x_i)|^2 of each answer: with respect to the head's matrix, from one pass
    without gradients ("head"), or to all that is trained, by a backward pass for each ("all"). A
    model without a linear head, such as a table, takes the second.

    Raises:
        InputError: for another layer.
    """
    if layer not in ("head", "all"):
        raise InputError(f"layer={layer!r}: head or all")
    if layer == "head":
        with policy.gathered(), policy.precise():
            found = head_squares(policy.model, tokens_of(seq), policy.temperature)
        if found is not None:
            return found
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    out = []
    for i in range(len(seq)):
        with torch.enable_grad():
            logp = policy.score(seq[i : i + 1]).logp.sum()
        grads = torch.autograd.grad(logp, trained, allow_unused=True)
        out.append(torch.stack([g.square().sum() for g in grads if g is not None]).sum())
    return torch.stack(out)


@part
def score_squares(nets: Nets, seq: Any, /, layer: str = "head") -> Any:
    """A column `score_square` [B]: `squares_of` the policy."""
    return with_columns(seq, score_square=squares_of(nets.policy, seq, layer))
