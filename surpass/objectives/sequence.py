"""Losses of sequence policies on segments of episodes, columns [B, T]."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from surpass.objectives.rows import Rows
from surpass.parts import Nets, Number, Schedule, part

__all__ = ["self_evolved"]


@part(needs=("return_to_go", "age"))
def self_evolved(
    nets: Nets, rows: Rows, /, beta: Number = 0.0, scale: float = 1.0, teacher: str = "teacher",
    shares: tuple[float, float, float] = (0.9, 0.05, 0.05), pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """Per segment, the mean over its steps of 0.9 |a^ - a~|^2 + 0.05 L1(s^_{t+1}) + 0.05
    L1(R^_{t+1}),
    smooth L1, the target a~ = (1 - beta) a + beta a^ of an earlier state of the net (`teacher`):
    labels that the past does not explain are believed less and less.

    Decision Mamba: A Multi-Grained State Space Model with Self-Evolution Regularization for Offline
    RL (2024). With beta 0 it is the loss of any sequence policy.
    """
    seen = rows.return_to_go / scale, rows.obs, rows.action, rows.age
    action, after = nets[pi](*seen)
    assert not isinstance(beta, Schedule)  # evaluated by then
    target = (1.0 - beta) * rows.action + beta * nets[teacher](*seen)[0].detach()
    left = (rows.return_to_go - rows.reward) / scale
    each = (
        shares[0] * (action - target).square().mean(-1)
        + shares[1] * smooth_l1_loss(after[..., :-1], rows.next_obs, reduction="none").mean(-1)
        + shares[2] * smooth_l1_loss(after[..., -1], left, reduction="none")
    )
    return (rows.mask * each).sum(1) / rows.mask.sum(1)
