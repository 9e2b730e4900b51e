"""What a policy that can be guided learns: the good actions under a label, all actions without."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["labeled_clone"]


@part
def labeled_clone(
    nets: Nets, rows: Rows, /, good: Any, null: float = 0.1, label: int = 1, pi: str = "pi"
) -> Float[Tensor, "B"]:
    """good(s, a) L(a | s, label) + null L(a | s), L the net's own imitation loss and `good` a
    weight per row without gradient.

    Diffusion Guidance Is a Controllable Policy Improvement Operator (2025).
    """
    weight = good(nets, rows).detach()
    conditional = nets[pi].imitation(rows.obs, rows.action, label)
    return weight * conditional + null * nets[pi].imitation(rows.obs, rows.action, 0)
