"""Bellman errors: what a value should be, from one step ahead, and how far it is from that.

A backup gives the value of the next state [B]; `td` adds the reward, stops at `terminated` (never
at `truncated`) and has the critic fit the sum:

    y = r + gamma (1 - terminated) backup(s'),   loss = sum_i fit(Q_i(s, a), y)

`nets.q(obs, action)` is [n, B], or [n, m, B] for m actions of each state, given as [m, B, k].
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows, discounted, span_of
from surpass.parts import Nets, Part, part

__all__ = [
    "apart", "behavior_penalized", "clipped_double", "conservative", "expected", "logged_return",
    "lowest_of_both", "max_backup",
    "sarsa", "soft", "state_td", "state_value", "subset_min", "target_of", "td", "td_error",
]  # fmt: skip

Backup = Part[[Nets, Rows], Tensor]


def target_of(
    nets: Nets, rows: Rows, backup: Any, gamma: Any, clamp: tuple[float, float] | None = None
) -> Float[Tensor, "B"]:
    """y = r + gamma (1 - terminated) backup(s'), without gradient; over n steps where rows have
    them. A backup may give [B, m] (the atoms of a return's distribution); then so is y."""
    future = backup(nets, rows).detach()
    keep = span_of(rows, gamma) * (1.0 - rows.terminated)
    reward = discounted(rows, gamma)
    if future.dim() == 2:
        keep, reward = keep[:, None] if isinstance(keep, Tensor) else keep, reward[:, None]
    y = reward + keep * future
    return y if clamp is None else y.clamp(*clamp)


@part
def td(
    nets: Nets,
    rows: Rows,
    /,
    backup: Any,
    gamma: float = 0.99,
    q: str = "q",
    huber: float | None = None,
    clamp: tuple[float, float] | None = None,
) -> Float[Tensor, "B"]:
    """The temporal-difference loss of every row, [B], summed over the critics of the ensemble.

    The critic's head decides what fitting means: squared error (scalar), quantile regression, or
    cross-entropy with a smoothed histogram (HL-Gauss). `huber` = delta makes the scalar error
    d^2 / (2 delta) where |d| < delta, |d| - delta / 2 beyond. `clamp` bounds the target.
    """
    y = target_of(nets, rows, backup, gamma, clamp)
    return nets[q].fit(rows.obs, rows.action, y, huber).sum(0)


@part
def state_td(
    nets: Nets, rows: Rows, /, backup: Any, gamma: float = 0.99, v: str = "v"
) -> Float[Tensor, "B"]:
    """The temporal-difference loss of state values: how far V(s) is from y, whatever action was
    logged, summed over the ensemble."""
    return nets[v].fit(rows.obs, target_of(nets, rows, backup, gamma)).sum(0)


@part
def td_error(
    nets: Nets, rows: Rows, /, backup: Any, gamma: float = 0.99, q: str = "q"
) -> Float[Tensor, "B"]:
    """|y - Q(s, a)|, the mean over the critics: how wrong they are about a row."""
    y = target_of(nets, rows, backup, gamma)
    return (nets[q](rows.obs, rows.action) - y).abs().mean(0)


# ----------------------------------------------------------------------------------------------
# backups: the value of the next state, [B]


@part
def clipped_double(
    nets: Nets, rows: Rows, /, noise: float = 0.2, clip: float = 0.5, q: str = "q_target",
    pi: str = "pi_target",
) -> Float[Tensor, "B"]:  # fmt: skip
    """min_i Q_i(s', clip(pi(s') + clip(eps))), eps ~ N(0, noise^2): target policy smoothing.

    Addressing Function Approximation Error in Actor-Critic Methods (TD3, 2018).
    """
    return nets[q](rows.next_obs, _smoothed(nets, rows, noise, clip, pi)).amin(0)


@part
def lowest_of_both(
    nets: Nets, rows: Rows, /, noise: float = 0.2, clip: float = 0.5, q: str = "q",
    target: str = "q_target", pi: str = "pi_target",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The backup of `clipped_double`, lowest over the critics as they are and over their targets.

    Adaptive Advantage-Guided Policy Regularization for Offline Reinforcement Learning (A2PR, 2024).
    """
    action = _smoothed(nets, rows, noise, clip, pi)
    now, late = nets[q](rows.next_obs, action), nets[target](rows.next_obs, action)
    return torch.minimum(now.amin(0), late.amin(0))


def _smoothed(nets: Nets, rows: Rows, noise: float, clip: float, pi: str) -> Tensor:
    action = nets[pi](rows.next_obs)
    jitter = (noise * torch.randn_like(action)).clamp(-clip, clip)
    return (action + jitter).clamp(-1.0, 1.0)


@part(needs=("next_action",))
def behavior_penalized(
    nets: Nets,
    rows: Rows,
    /,
    weight: float = 0.01,
    noise: float = 0.2,
    clip: float = 0.5,
    q: str = "q_target",
    pi: str = "pi_target",
) -> Float[Tensor, "B"]:
    """TD3's backup minus weight ||a' - a'_log||^2, a'_log the action logged next.

    Revisiting the Minimalist Approach to Offline Reinforcement Learning (ReBRAC, 2023).
    """
    action = _smoothed(nets, rows, noise, clip, pi)
    distance = (action - rows.next_action).square().sum(-1)
    return nets[q](rows.next_obs, action).amin(0) - weight * distance


@part
def soft(
    nets: Nets, rows: Rows, /, entropy: bool = True, q: str = "q_target", pi: str = "pi",
    alpha: str = "alpha",
) -> Float[Tensor, "B"]:  # fmt: skip
    """min_i Q_i(s', a') - alpha log pi(a'|s'), a' ~ pi; without the entropy term where `entropy` is
    false.

    Soft Actor-Critic Algorithms and Applications (2018).
    """
    action, logp = nets[pi].sample(rows.next_obs)
    value = nets[q](rows.next_obs, action).amin(0)
    return value - nets[alpha]() * logp if entropy else value


@part
def subset_min(
    nets: Nets, rows: Rows, /, size: int = 2, entropy: bool = True, q: str = "q_target",
    pi: str = "pi", alpha: str = "alpha",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The soft backup with the minimum over `size` critics drawn anew for each batch.

    Randomized Ensembled Double Q-Learning (REDQ, 2021).
    """
    action, logp = nets[pi].sample(rows.next_obs)
    values = nets[q](rows.next_obs, action)
    chosen = torch.rand(values.shape[0], device=values.device).topk(size).indices
    value = values.index_select(0, chosen).amin(0)
    return value - nets[alpha]() * logp if entropy else value


@part
def state_value(nets: Nets, rows: Rows, /, v: str = "v") -> Float[Tensor, "B"]:
    """V(s'), the lowest of the ensemble: no action of a policy is ever evaluated.

    Offline Reinforcement Learning with Implicit Q-Learning (IQL, 2021).
    """
    return nets[v](rows.next_obs).amin(0)


@part
def expected(
    nets: Nets, rows: Rows, /, samples: int = 1, q: str = "q_target", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """The mean over `samples` actions of pi of min_i Q_i(s', a')."""
    action, _ = nets[pi].sample(rows.next_obs, samples)
    return nets[q](rows.next_obs, action).amin(0).mean(0)


@part
def max_backup(
    nets: Nets, rows: Rows, /, samples: int = 10, q: str = "q_target", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """max over `samples` actions of pi of min_i Q_i(s', a').

    Conservative Q-Learning for Offline Reinforcement Learning (2020).
    """
    action, _ = nets[pi].sample(rows.next_obs, samples)
    return nets[q](rows.next_obs, action).amin(0).amax(0)


@part(needs=("next_action",))
def sarsa(nets: Nets, rows: Rows, /, q: str = "q_target") -> Float[Tensor, "B"]:
    """min_i Q_i(s', a'), a' the action logged next: the value of the behavior policy."""
    return nets[q](rows.next_obs, rows.next_action).amin(0)


# ----------------------------------------------------------------------------------------------
# penalties


@part(needs=("return_to_go",))
def logged_return(nets: Nets, rows: Rows, /) -> Float[Tensor, "B"]:
    """The discounted return that the log had from the step on: a floor for `conservative`."""
    return rows.return_to_go


@part
def conservative(
    nets: Nets, rows: Rows, /, samples: int = 10, temperature: float = 1.0,
    floor: Any = None, q: str = "q", pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """CQL(H)'s penalty per row, summed over the critics:

        T log sum_k exp((Q(s, a_k) - log mu(a_k|s)) / T) - Q(s, a)

    over `samples` actions each from the uniform distribution, from pi(.|s), and from pi(.|s')
    evaluated at s; mu is the density they came from. With a `floor`, the values of the
    policy's actions do not count below it (Cal-QL: `logged_return()`). With discrete actions the
    sum
    runs over all of them.

    Conservative Q-Learning for Offline Reinforcement Learning (2020); Cal-QL: Calibrated Offline
    RL Pre-Training for Efficient Online Fine-Tuning (2023).
    """
    critic = nets[q]
    logged = critic(rows.obs, rows.action)
    if getattr(critic, "actions", 0):
        everything = critic.all(rows.obs)
        pushed = temperature * torch.logsumexp(everything / temperature, -1)
        return (pushed - logged).sum(0)
    with torch.no_grad():
        here, logp_here = nets[pi].sample(rows.obs, samples)
        there, logp_there = nets[pi].sample(rows.next_obs, samples)
        uniform = torch.rand_like(here) * 2.0 - 1.0
    values = critic(rows.obs, torch.cat([here, there, uniform]))
    own, random = values[:, : 2 * samples], values[:, 2 * samples :]
    if floor is not None:
        own = torch.maximum(own, floor(nets, rows))
    density = rows.action.shape[-1] * math.log(0.5)
    corrected = torch.cat(
        [own - torch.cat([logp_here, logp_there]), random - density], 1
    )  # [n, 3 samples, B]
    pushed = temperature * torch.logsumexp(corrected / temperature, 1)
    return (pushed - logged).sum(0)


@part
def apart(nets: Nets, rows: Rows, /, q: str = "q") -> Float[Tensor, "B"]:
    """How alike the critics' action gradients are at the logged action: the mean over pairs of
    their cosine, [B], times n (EDAC's penalty, to be added with its weight eta).

    Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble (EDAC, 2021):
    1 / (n - 1) sum over i != j of <g_i, g_j>, g_i = grad_a Q_i / |grad_a Q_i|.
    """
    gradients = nets[q].action_gradients(rows.obs, rows.action)  # [n, B, k]
    unit = gradients / (gradients.norm(dim=-1, keepdim=True) + 1e-10)
    n = unit.shape[0]
    together = unit.sum(0).square().sum(-1) - unit.square().sum(-1).sum(0)
    return together / max(n - 1, 1)
