"""What trains nets that evaluate one fixed policy: values that follow it, and a model of the world.

The policy itself is not in the loss: what it does in every logged next state is a column,
`target_action` (probabilities [B, A], or a continuous action [B, k]). `multiplier` [B, n] weighs
each episode anew for every member of the ensemble, so that the members differ as estimates from
repeated logs would.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["likelihood", "policy_td"]


@part(needs=("target_action", "multiplier"))
def policy_td(
    nets: Nets, rows: Rows, /, gamma: float = 0.99, q: str = "q", q_target: str = "q_target",
    clamp: tuple[float, float] | None = None,
) -> Float[Tensor, "B"]:  # fmt: skip
    """sum_k w_k (Q_k(s, a) - y_k)^2, y_k = r + gamma (1 - terminated) E_pi Q'_k(s', a').

    Every member follows its own target and its own weights. Le, Voloshin and Yue, Batch policy
    learning under constraints (2019); Hao, Ji, Duan, Lu, Szepesvari and Wang, Bootstrapping fitted
    Q-evaluation for off-policy inference (2021).
    """
    with torch.no_grad():
        critic = nets[q_target]
        if critic.actions:
            after = (critic.all(rows.next_obs) * rows.target_action).sum(-1)
        else:
            after = critic(rows.next_obs, rows.target_action)
        y = rows.reward + gamma * (1.0 - rows.terminated) * after
        y = y if clamp is None else y.clamp(*clamp)
    return (rows.multiplier.T * nets[q].fit(rows.obs, rows.action, y)).sum(0)


@part(needs=("outcome", "multiplier"))
def likelihood(nets: Nets, rows: Rows, /, model: str = "model") -> Float[Tensor, "B"]:
    """- sum_k w_k log p_k(outcome, terminated | s, a): a Gaussian of change and reward, `outcome`
    [B, d + 1] in standard units, and a chance of ending.

    Chua, Calandra, McAllister and Levine, Deep reinforcement learning in a handful of trials using
    probabilistic dynamics models (2018).
    """
    mean, log_var, end = nets[model](rows.obs, rows.action)
    error = (rows.outcome - mean).square() * (-log_var).exp()
    loss = 0.5 * (error + log_var).sum(-1)
    ended = torch.nn.functional.softplus(end) - rows.terminated * end
    return (rows.multiplier.T * (loss + ended)).sum(0)
