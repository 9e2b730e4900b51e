"""Values of a policy through an instrument: what moves the action and touches nothing else."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.views import TrajectoryQuery
from surpass.parts import part

__all__ = ["instrumental", "instrumental_direct", "instrumental_ratio", "signed_policy"]


def signed_policy(
    taken: Float[Tensor, "... 2"],
    wanted: Float[Tensor, "..."],
    least: float = 0.01,
    widest: float = 50.0,
) -> Float[Tensor, "... 2"]:
    """c(z|s), the signed weights on the two values of the instrument that give the target's chance
    of action 1: sum_z c(z|s) P(A=1|s,z) = pi(1|s) and sum_z c(z|s) = 1.

    They may be negative or above 1, which is no error; |P(A=1|s,1) - P(A=1|s,0)| is kept at
    `least`, |c| at `widest`.

    Args:
        taken: P(A=1|s,z) for z = 0, 1. wanted: pi(1|s).
    """
    off, on = taken.unbind(-1)
    delta = relevance(taken, least)
    return torch.stack(((on - wanted) / delta, (wanted - off) / delta), -1).clamp(-widest, widest)


def relevance(taken: Float[Tensor, "... 2"], least: float = 0.01) -> Float[Tensor, "..."]:
    """P(A=1|s,1) - P(A=1|s,0), at least `least` in size."""
    delta = taken[..., 1] - taken[..., 0]
    sign = torch.where(delta < 0, -1.0, 1.0)
    return sign * delta.abs().clamp_min(least)


def _mean_step(rows: Float[Tensor, "N T"], steps: Float[Tensor, "N T"]) -> Float[Tensor, "N"]:
    """Scores of episodes whose mean is the mean over all steps, each step counted once however long
    its episode: m + sum_t steps (rows - m) over the mean number of steps."""
    mean = (rows * steps).sum() / steps.sum()
    return mean + ((rows - mean) * steps).sum(1) / steps.sum(1).mean()


@part(needs=("iv",))
def instrumental_direct(query: TrajectoryQuery, /) -> Float[Tensor, "N"]:
    """V(s_0) of the model: needs Q right."""
    return query.extras["iv"][:, 0, 0]


@part(needs=("iv",))
def instrumental_ratio(query: TrajectoryQuery, /) -> Float[Tensor, "N"]:
    """Mean over steps of omega(s) rho(s,z) r / (1 - gamma): needs the ratios right."""
    weight, steps = query.extras["iv"][..., 1], query.extras["iv"][..., 3]
    return _mean_step(weight * query.reward, steps) / (1 - query.gamma)


@part(needs=("iv",))
def instrumental(query: TrajectoryQuery, /) -> Float[Tensor, "N"]:
    """V(s_0) + 1/(1 - gamma) mean over steps of omega(s) rho(s,z) [ r + gamma V(s') - m_z(s)
    + (a - P(A=1|s,z)) (m_0(s) - m_1(s)) / delta(s) ], with m_z(s) = sum_a P(a|s,z) Q(s,z,a).

    The last term corrects for P(A|s,z) being estimated. Right when Q is, or when the ratios are;
    Xu, Zhu, Shi, Luo and Song, An instrumental variable approach to confounded off-policy
    evaluation (2023). `extras["iv"]` [N, T, 4] has V, omega rho, the bracket, and 1 where a step
    has a successor (`critics.instruments`). Single decisions are episodes of one step at gamma 0.
    """
    value, weight, bracket, steps = query.extras["iv"].unbind(-1)
    return value[:, 0] + _mean_step(weight * bracket, steps) / (1 - query.gamma)
