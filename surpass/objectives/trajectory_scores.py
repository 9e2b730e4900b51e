"""Scores of logged episodes: what each says about a target policy's value; their mean is the
estimate.

Nearly every estimator for episodes is a weight per step and a baseline in

    score_i = sum_t gamma^t [ w_t (r_t - q_t) + w_{t-1} v_t ],   w_{-1} = 1    `trajectory(weight,
    baseline)`

as one for decisions is in `objectives.scores`. With no baseline, q = v = 0. A self-normalized one
divides w_t by its mean over episodes, and gets its scores from `scores.linearized`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import TrajectoryQuery, ones_like_rows
from surpass.parts import Part, part

__all__ = [
    "abstract_reward_process", "at_end", "averaged", "cumulative", "double_marginal", "last_ratios",
    "marginal", "member_values", "modeled_path", "no_path", "path_alone", "per_step",
    "return_below", "state_marginal", "sum_of_steps", "trajectory",
]  # fmt: skip

PathWeight = Part[[TrajectoryQuery], Tensor]
PathBaseline = Part[[TrajectoryQuery], tuple[Any, Any]]


# ----------------------------------------------------------------------------------------------
# weights, [N, T]


@part
def cumulative(query: TrajectoryQuery, /) -> Float[Tensor, "N T"]:
    """rho_{0:t}, the product of the ratios so far; after the end it stays what it was.

    Precup, Sutton and Singh, Eligibility traces for off-policy policy evaluation (2000).
    """
    return query.ratio.cumprod(1)


@part
def at_end(query: TrajectoryQuery, /) -> Float[Tensor, "N T"]:
    """rho_{0:T-1}, the product over the whole episode, at every step."""
    return query.ratio.prod(1, keepdim=True).expand_as(query.ratio)


@part
def last_ratios(query: TrajectoryQuery, /, last: int | None = None) -> Float[Tensor, "N T"]:
    """The product of the `last` ratios that end at t (all when None), by a sliding product."""
    if last is None:
        return query.ratio.cumprod(1)
    out = torch.ones_like(query.ratio)
    for back in range(min(last, query.ratio.shape[1])):
        shifted = torch.ones_like(query.ratio)
        shifted[:, back:] = query.ratio[:, : query.ratio.shape[1] - back]
        out = out * shifted
    return out


@part(needs=("marginal",))
def marginal(query: TrajectoryQuery, /) -> Float[Tensor, "N T"]:
    """d^pi(s, a) / d^mu(s, a), given or learned, in `extras["marginal"]` [N, T].

    Liu, Li, Tang and Zhou, Breaking the curse of horizon: infinite-horizon off-policy estimation
    (2018); Xie, Ma and Wang, Towards optimal off-policy evaluation for reinforcement learning with
    marginalized importance sampling (2019).
    """
    return query.extras["marginal"]


@part(needs=("state_marginal",))
def state_marginal(query: TrajectoryQuery, /) -> Float[Tensor, "N T"]:
    """d^pi(s) / d^mu(s) in `extras["state_marginal"]` [N, T], times the ratio of the step."""
    return query.extras["state_marginal"] * query.ratio


@part
def per_step(query: TrajectoryQuery, /, weight: PathWeight = cumulative()) -> Float[Tensor, "N T"]:
    """Weights divided by their mean over episodes at each step."""
    w, rows = weight(query), ones_like_rows(query)
    return w * rows.sum() / (rows @ w)


# ----------------------------------------------------------------------------------------------
# baselines: the value v of the visited state and q of the logged action, [N, T]


@part
def no_path(query: TrajectoryQuery, /) -> tuple[Tensor, Tensor]:
    """No model: v = q = 0."""
    zero = query.reward.new_zeros(())
    return zero, zero


@part(needs=("q",))
def modeled_path(query: TrajectoryQuery, /) -> tuple[Tensor, Tensor]:
    """v = sum_a pi q and q of the logged action, 0 behind the end."""
    return query.direct, query.logged_q


# ----------------------------------------------------------------------------------------------
# scores, [N]


@part
def trajectory(
    query: TrajectoryQuery, /, weight: PathWeight = cumulative(), baseline: PathBaseline = no_path()
) -> Float[Tensor, "N"]:
    """sum_t gamma^t [w_t (r_t - q_t) + w_{t-1} v_t].

    `at_end` weights without a model: importance sampling; `cumulative`: per-decision importance
    sampling; with a model: doubly robust (Jiang and Li, Doubly robust off-policy value evaluation
    for reinforcement learning, 2016; Thomas and Brunskill, Data-efficient off-policy policy
    evaluation for reinforcement learning, 2016); `marginal` with a model: double reinforcement
    learning (Kallus and Uehara, 2020).
    """
    value, predicted = baseline(query)
    w = weight(query)
    before = torch.cat((torch.ones_like(w[:, :1]), w[:, :-1]), 1)
    steps = w * (query.reward - predicted) + before * value
    return (query.mask * steps) @ query.discount


@part(needs=("q", "marginal"))
def double_marginal(query: TrajectoryQuery, /) -> Float[Tensor, "N"]:
    """v(s_0) + sum_t gamma^t w_t (r_t + gamma v_{t+1} - q_t), w of (s, a) alone.

    Kallus and Uehara, Double reinforcement learning for efficient off-policy evaluation in Markov
    decision processes (2020).
    """
    behind = None
    if query.cut is not None and query.beyond_q is not None:
        behind = (query.beyond_target * query.beyond_q).sum(-1)
    error = query.reward + query.gamma * query.later(query.direct, behind) - query.logged_q
    return query.direct[:, 0] + (query.mask * query.extras["marginal"] * error) @ query.discount


@part(needs=("q",))
def path_alone(query: TrajectoryQuery, /) -> Float[Tensor, "N"]:
    """v of the start: the direct method."""
    return query.direct[:, 0]


@part(needs=("start", "multiplier"))
def member_values(query: TrajectoryQuery, /) -> Float[Tensor, "n"]:
    """What each member of an ensemble says: its values of the starts, averaged with its own weights
    of the episodes. `extras["start"]` [N, n] is nan where it was not asked."""
    value, weight = query.extras["start"], query.extras["multiplier"]
    weight = torch.where(value.isnan(), torch.zeros_like(weight), weight)
    return (weight * value.nan_to_num()).sum(0) / weight.sum(0)


@part
def averaged(
    query: TrajectoryQuery, /, score: Part[[TrajectoryQuery], Tensor]
) -> Float[Tensor, ""]:
    """The mean of scores under `query.weights`: what `linearized` differentiates."""
    weights = ones_like_rows(query)
    return weights @ score(query) / weights.sum()


@part
def return_below(
    query: TrajectoryQuery, /, limit: float = 0.0, weight: PathWeight = at_end()
) -> Float[Tensor, "N"]:
    """w_{T-1} 1[G <= limit]: its mean is the target's distribution function of returns there.

    Chandak and others, Universal off-policy evaluation (2021); Huang, Leqi, Lipton and
    Azizzadenesheli, Off-policy risk assessment in contextual bandits (2021).
    """
    return weight(query)[:, -1] * (query.paid <= limit).to(query.reward.dtype)


# ----------------------------------------------------------------------------------------------
# values that are solved for


@part(needs=("bin",))
def abstract_reward_process(
    query: TrajectoryQuery, /, last: int | None = None, horizon: int | None = None
) -> Float[Tensor, ""]:
    """J = eta' (I - gamma P)^{-1} R of the reward process over bins of states, weighted counts.

    With w_t the product of the `last` ratios that end at t (all when None):
    N(z) = sum w_t 1[z_t = z], P(z, z') = sum w_t 1[z_t = z, z_{t+1} = z', not ended] / N(z),
    R(z) = sum w_t r_t 1[z_t = z] / N(z), eta(z) the share of episodes that start in z. A bin that
    was never visited has zero rows. A last step that was cut says nothing of where it leads and
    does not count in P. With a `horizon`, the sum of that many steps instead of the
    solve, and step T - 1 is a cut; where gamma is 1 and episodes were cut, the longest's length is
    the horizon. `extras["bin"]` [N, T] numbers the bin of every visited state.

    Chaudhari, Deshpande, Castro da Silva and Thomas, Abstract reward processes: leveraging state
    abstraction for consistent off-policy evaluation (2024).

    Raises:
        InputError: when gamma is 1 without a horizon and the process does not end.
    """
    if horizon is None and query.gamma == 1 and query.cut is not None and bool(query.cut.any()):
        horizon = query.reward.shape[1]
    rows = ones_like_rows(query)
    counted = last_ratios(last)(query) * query.mask * rows[:, None]
    z = query.extras["bin"].to(torch.int64)
    bins = int(z.max()) + 1
    visits = counted.new_zeros(bins).index_add(0, z.flatten(), counted.flatten())
    earned = counted.new_zeros(bins).index_add(0, z.flatten(), (counted * query.reward).flatten())
    goes_on = counted[:, :-1] * query.mask[:, 1:]
    pair = (z[:, :-1] * bins + z[:, 1:]).flatten()
    moves = counted.new_zeros(bins * bins).index_add(0, pair, goes_on.flatten()).view(bins, bins)
    seen = visits.detach() > 0
    safe = torch.where(seen, visits, torch.ones_like(visits))
    leaving, told = safe, _successor_known(query, horizon)
    if told is not None:
        left = (counted * told).flatten()
        leaving = counted.new_zeros(bins).index_add(0, z.flatten(), left)
        leaving = torch.where(leaving.detach() > 0, leaving, torch.ones_like(leaving))
    P, R = moves / leaving[:, None], earned / safe
    start = counted.new_zeros(bins).index_add(0, z[:, 0], rows * query.mask[:, 0])
    start = start / start.sum()
    if horizon is not None:
        return sum_of_steps(start, P, R, query.gamma, horizon)
    eye = torch.eye(bins, dtype=P.dtype)
    value, singular = torch.linalg.solve_ex(eye - query.gamma * P, R)
    if int(singular):
        raise InputError("the reward process never ends and gamma is 1; give gamma below 1")
    return start @ value


def _successor_known(query: TrajectoryQuery, horizon: int | None) -> Any:
    """1 where the log shows what came of a step, [N, T]: not where an episode was cut, and not at
    the horizon; None where that is everywhere."""
    if horizon is None and query.cut is None:
        return None
    told = torch.ones_like(query.mask)
    if horizon is not None:
        told[:, -1] = 0.0
    if query.cut is not None:
        last = query.mask.sum(1).long() - 1
        told[torch.arange(len(last)), last] *= 1.0 - query.cut
    return told


def sum_of_steps(
    start: Float[Tensor, "Z"], P: Float[Tensor, "Z Z"], R: Float[Tensor, "Z"], gamma: float,
    horizon: int,
) -> Float[Tensor, ""]:  # fmt: skip
    """sum_{t < horizon} gamma^t x_t' R with x_{t+1} = P' x_t."""
    total = start.new_zeros(())
    for t in range(horizon):
        total = total + gamma**t * (start @ R)
        start = P.T @ start
    return total
