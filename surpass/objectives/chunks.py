"""Imitation of several actions at once, from segments of episodes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["chunk_clone"]


@part
def chunk_clone(nets: Nets, rows: Rows, /, pi: str = "pi") -> Float[Tensor, "B"]:
    """The imitation loss of the segment's actions, [B, h k], from its first observation.

    The source is a log of whole segments, `log(view="segments", n=h, whole=True)`, and the net one
    that proposes `chunk=h` actions.
    """
    return nets[pi].imitation(rows.obs[:, 0], rows.action.flatten(1))
