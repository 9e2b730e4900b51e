"""Values without a discount: what is earned above the average reward rho per step, for as long as
it matters. They are known up to a constant."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, gae, with_reward
from surpass.objectives.reduce import decided, total
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["centered_gae", "differential_td"]


@part
def differential_td(
    nets: Nets, rows: Rows, /, backup: Any, q: str = "q", rate: str = "rho"
) -> Float[Tensor, "B"]:
    """The loss of every row, summed over the critics, with a gradient to the rate as well:

        (Q(s, a) + rho - r - (1 - terminated) backup(s'))^2

    A constant of Q mends an error of rho as well, until its target follows: rho goes to what is
    earned by less than tau an update, and Q drifts until then.

    Off-Policy Average Reward Actor-Critic with Deterministic Policy Search (2023).
    """
    y = rows.reward + (1.0 - rows.terminated) * backup(nets, rows).detach()
    return nets[q].fit(rows.obs, rows.action, y - nets[rate]()).sum(0)


@part(needs=("value",))
def centered_gae(seq: Sequences, /, lam: float = 0.95) -> dict[str, Tensor]:
    """`gae` without a discount, on rewards less their mean over the batch: the advantage in average
    reward.

    On-Policy Deep Reinforcement Learning for the Average-Reward Criterion (2021).
    """
    assert seq.reward is not None
    own = decided(seq.mask)
    mean = total((seq.reward * own).sum()) / total(own.sum())
    return gae(1.0, lam)(with_reward(seq, (seq.reward - mean) * own))
