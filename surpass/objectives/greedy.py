"""Values of discrete actions and of return distributions: what DQN, PQN and TQC back up."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import with_columns
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["best_action", "lambda_returns", "toward", "truncated_atoms"]


@part
def best_action(
    nets: Nets, rows: Rows, /, double: bool = True, q: str = "q", target: str = "q_target"
) -> Float[Tensor, "B"]:
    """Q_target(s', argmax_a Q(s', a)), the lowest of the ensemble; without `double`, max_a
    Q_target(s', a).

    Deep Reinforcement Learning with Double Q-learning (2015).
    """
    values = nets[target].all(rows.next_obs).amin(0)  # [B, A]
    if not double:
        return values.amax(-1)
    chosen = nets[q].all(rows.next_obs).mean(0).argmax(-1, keepdim=True)
    return values.gather(-1, chosen)[:, 0]


@part
def truncated_atoms(
    nets: Nets, rows: Rows, /, drop: int = 2, q: str = "q_target", pi: str = "pi",
    alpha: str = "alpha",
) -> Float[Tensor, "B m"]:  # fmt: skip
    """The pooled quantiles of all critics at a' ~ pi without the `drop` n largest, each less
    alpha log pi(a'|s').

    Controlling Overestimation Bias with Truncated Mixture of Continuous Distributional Quantile
    Critics (TQC, 2020).
    """
    action, logp = nets[pi].sample(rows.next_obs)
    atoms = nets[q].outputs(rows.next_obs, action)  # [n, B, w]
    n, batch, width = atoms.shape
    pooled = atoms.permute(1, 0, 2).reshape(batch, n * width).sort(-1).values
    return pooled[:, : n * (width - drop)] - (nets[alpha]() * logp)[:, None]


@part
def lambda_returns(
    nets: Nets, seq: Any, /, gamma: float = 0.99, lam: float = 0.65, q: str = "q"
) -> Any:
    """A column `q_target` [B, T], the lambda-return of greedy values:

        G_t = r_t + gamma ((1 - lam) max_a Q(s_{t+1}, a) + lam G_{t+1})

    without what follows where s_{t+1} is terminal, with max_a Q alone where the episode was cut.

    Simplifying Deep Temporal Difference Learning (PQN, 2024).
    """
    obs = seq.next_obs
    best = nets[q].all(obs.flatten(0, 1)).mean(0).amax(-1).reshape(obs.shape[:2])
    last = seq.terminated | seq.truncated
    goes_on, ahead, out = (~seq.terminated).to(best.dtype), best[:, -1], []
    for t in reversed(range(obs.shape[1])):
        mixed = best[:, t] if t == obs.shape[1] - 1 else (1 - lam) * best[:, t] + lam * ahead
        future = torch.where(last[:, t], best[:, t], mixed)
        ahead = seq.reward[:, t] + gamma * goes_on[:, t] * future
        out.append(ahead)
    return with_columns(seq, q_target=torch.stack(out[::-1], 1))


@part
def toward(nets: Nets, rows: Rows, /, column: str = "q_target", q: str = "q") -> Float[Tensor, "B"]:
    """The critic's loss toward a column of targets, summed over the ensemble."""
    return nets[q].fit(rows.obs, rows.action, getattr(rows, column)).sum(0)
