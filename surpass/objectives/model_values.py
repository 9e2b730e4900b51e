"""Improvement on logged states: what actions drawn anew are worth by values learned from the log,
what a policy is worth inside a learned model, and how several clones of one log stay apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, with_columns
from surpass.objectives.reduce import decided, total
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = [
    "change_likelihood", "diverse_clones", "gains", "model_value", "returns_loss", "tilted_gain",
]  # fmt: skip

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@part(needs=("return_to_go",))
def returns_loss(nets: Nets, rows: Rows, /, net: str = "value") -> Float[Tensor, "B"]:
    """(G - V(s))^2 of a value of sequences, G the logged return from the step on: where a policy
    gradient that follows starts from."""
    return (rows.return_to_go - nets[net](rows)).square()


@part
def change_likelihood(nets: Nets, rows: Rows, /, model: str = "model") -> Float[Tensor, "B"]:
    """-log p(s' - s, r | s, a) of a Gaussian model, summed over its members."""
    mean, log_var, _ = nets[model](rows.obs, rows.action)
    outcome = torch.cat([rows.next_obs - rows.obs, rows.reward[:, None]], -1)
    error = (outcome - mean).square() * (-log_var).exp()
    return (0.5 * (error + log_var) + _HALF_LOG_TWO_PI).sum(-1).sum(0)


@part
def diverse_clones(
    nets: Nets, rows: Rows, /, members: tuple[str, ...], alpha: float = 0.1
) -> Float[Tensor, "B"]:
    """-sum_i (log pi_i + alpha (log pi_i - max_{j != i} log pi_j)) of the logged action: policies
    that clone one log, each where the others do not; the gradient reaches the others too, so that
    of two members nothing is left but clones: what one gains the other loses.

    "Uni-O4: Unifying Online and Offline Deep Reinforcement Learning with Multi-Step On-Policy
    Optimization" (2023).
    """
    logp = torch.stack([-nets[name].imitation(rows.obs, rows.action) for name in members])
    if len(members) == 1:
        return -logp[0]
    own = torch.eye(len(members), dtype=torch.bool, device=logp.device)[:, :, None]
    others = torch.where(own, -torch.inf, logp[None]).amax(1)
    return -(logp + alpha * (logp - others)).sum(0)


def _seen(action: Tensor) -> Tensor:
    """What the environment makes of an action: clipped to [-1, 1] where it is continuous."""
    return action.clamp(-1.0, 1.0) if action.is_floating_point() else action


@part
def gains(nets: Nets, seq: Sequences, /, q: str = "q", value: str = "value") -> Any:
    """A column `gain` [B, T]: min_i Q_i(s, a) - V(s), by values of the log, of the action that the
    environment would see, clipped to [-1, 1]."""
    shape = seq.mask.shape
    flat: Any = seq
    action = _seen(flat.action.flatten(0, 1))
    worth = nets[q](flat.obs.flatten(0, 1), action).amin(0).reshape(shape)
    return with_columns(seq, gain=(worth - nets[value](seq)).detach())


@part
def tilted_gain(seq: Sequences, /, omega: float = 0.7, eps: float = 1e-8) -> Float[Tensor, "B T"]:
    """The column `gain`, standardized over the batch, times omega where it is positive and
    1 - omega where it is not."""
    gain, own = seq.extras["gain"], decided(seq.mask)
    count = total(own.sum())
    mean = total((gain * own).sum()) / count
    var = total(((gain - mean).square() * own).sum()) / count
    a = (gain - mean) / (var.sqrt() + eps)
    return a * torch.where(a > 0, omega, 1.0 - omega) * own


@part
def model_value(
    nets: Nets, seq: Any, /, horizon: int = 1000, policy: str = "policy", model: str = "model",
    q: str = "q",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The mean of Q over the pairs that the policy's central actions visit in `horizon` steps
    inside the model (the mean change of its members), from the states of a batch: whether a policy
    is better than another, by values of the log."""
    obs = seq.obs.flatten(0, -2)
    sum_of = torch.zeros_like(obs[:, 0])
    for _ in range(horizon):
        action = _seen(nets[policy](obs))
        sum_of = sum_of + nets[q](obs, action).amin(0)
        mean, _, _ = nets[model](obs, action)
        obs = obs + mean.mean(0)[:, :-1]
    return sum_of / horizon
