"""Bridge functions: what a policy on observations is worth where the logging agent saw more.

The log has observations, actions and rewards; the actions depended on a hidden state. One
observation o_0 from before the first decision, and the past, say something about that state that
later outcomes do not depend on otherwise: conditional moments on them identify, backward in time,
a function whose sum over actions is the value, and another whose sum is the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError

__all__ = ["Bridged", "Observed", "bridge", "memory_of", "taken_with"]


@dataclass(frozen=True)
class Observed:
    """Distinct episodes of T decisions with how often they occurred.

    Attributes:
        obs: o_0 .. o_T, [U, T + 1], numbers below `n_obs`; o_0 comes before the first decision.
        action: a_1 .. a_T, [U, T]. reward: their mean reward, [U, T].
        weight: share of the episodes, [U], summing to 1. episodes: how many there were.
    """

    obs: Int[Tensor, "U T1"]
    action: Int[Tensor, "U T"]
    reward: Float[Tensor, "U T"]
    weight: Float[Tensor, "U"]
    n_obs: int
    n_actions: int
    episodes: int

    @classmethod
    def of(
        cls, obs: Int[Tensor, "N T1"], action: Int[Tensor, "N T"], reward: Float[Tensor, "N T"],
        n_obs: int, n_actions: int,
    ) -> Observed:  # fmt: skip
        """Gather equal episodes; the bridges are linear in rewards, so nothing is lost.

        Raises:
            InputError: when there is not one observation more than decisions.
        """
        if obs.shape[1] != action.shape[1] + 1 or action.shape != reward.shape:
            raise InputError(
                f"{obs.shape[1]} observations and {action.shape[1]} actions an episode; there must "
                "be one observation more, from before the first decision"
            )
        both = torch.cat((obs, action), 1)
        unique, place, count = torch.unique(both, dim=0, return_inverse=True, return_counts=True)
        total = torch.zeros(len(unique), action.shape[1], dtype=torch.float64)
        total.index_add_(0, place, reward.to(torch.float64))
        T = action.shape[1]
        return cls(
            unique[:, : T + 1], unique[:, T + 1 :], total / count[:, None],
            count.to(torch.float64) / len(obs), n_obs, n_actions, len(obs),
        )  # fmt: skip


def memory_of(log: Observed, t: int) -> Int[Tensor, "U"]:
    """What the policy remembers at decision t (from 0): the observation before, or `n_obs` at the
    first decision, where o_0 may not be used."""
    return log.obs[:, t] if t else torch.full_like(log.obs[:, 0], log.n_obs)


def taken_with(pi: Float[Tensor, "M X A"], log: Observed, t: int) -> Float[Tensor, "U"]:
    """The policy's probability of the logged action at decision t."""
    return pi[memory_of(log, t), log.obs[:, t + 1], log.action[:, t]]


@dataclass(frozen=True)
class Bridged:
    """The value of a policy, its gradient in the logits [M, X, A], and the largest condition
    number of the moments: where it is large, o_0 and the past say too little of what is hidden."""

    value: float
    gradient: Float[Tensor, "M X A"]
    condition: float


def bridge(log: Observed, logits: Float[Tensor, "M X A"], ridge: float = 1e-7) -> Bridged:
    """Solve both bridge equations backward in time, by two-stage least squares on one-hot cells:

        E[ b_V(a,o,m) - pi (r + sum_a' b_V'(a',o',m')) | a, past, o_0 ] = 0
        E[ b_D(a,o,m) - (r + sum_a' b_V') grad pi - pi sum_a' b_D' | a, past, o_0 ] = 0

    with pi = pi(a | o, m), m the observation before. Then the value is E[sum_a b_V(a, o_1)] and
    the gradient E[sum_a b_D(a, o_1)]: b already holds pi.

    A Policy Gradient Method for Confounded POMDPs (2024).
    """
    M, X, A = logits.shape
    pi = torch.softmax(logits.to(torch.float64), -1)
    slopes = _slopes(pi)  # [M, X, A, K]
    K = M * X * A
    ahead_v, ahead_d = torch.zeros(X, M).double(), torch.zeros(X, M, K).double()
    worst, last = 1.0, log.action.shape[1] - 1
    level = log.weight @ log.reward  # a constant moves the value, never the gradient: less noise
    for t in reversed(range(last + 1)):
        m, o, a = memory_of(log, t), log.obs[:, t + 1], log.action[:, t]
        p, slope = pi[m, o, a], slopes[m, o, a]
        then, moved = log.reward[:, t] - level[t], torch.zeros_like(slope)
        if t < last:
            follows = log.obs[:, t + 2]
            then, moved = then + ahead_v[follows, o], ahead_d[follows, o]
        right = torch.cat((
            (p * then)[:, None], then[:, None] * slope + p[:, None] * moved
        ), 1)  # fmt: skip
        found, condition = _two_stage(log, t, (m * X + o) * A + a, K, right, ridge)
        worst = max(worst, condition)
        summed = found.view(M, X, A, 1 + K).sum(2).transpose(0, 1)
        ahead_v, ahead_d = summed[..., 0], summed[..., 1:]
    start = log.obs[:, 1]
    none = torch.full_like(start, log.n_obs)
    value = log.weight @ ahead_v[start, none]
    gradient = log.weight @ ahead_d[start, none]
    return Bridged(float(value + level.sum()), gradient.view(M, X, A), worst)


def _slopes(pi: Float[Tensor, "M X A"]) -> Float[Tensor, "M X A K"]:
    """d pi(a | o, m) / d logits."""
    M, X, A = pi.shape
    out = torch.zeros(M, X, A, M, X, A, dtype=pi.dtype)
    own = torch.diag_embed(pi) - pi[..., None] * pi[..., None, :]
    for m in range(M):
        for o in range(X):
            out[m, o, :, m, o, :] = own[m, o]
    return out.view(M, X, A, M * X * A)


def _two_stage(
    log: Observed, t: int, cell: Tensor, cells: int, right: Float[Tensor, "U c"], ridge: float
) -> tuple[Float[Tensor, "K c"], float]:
    """b per cell (a, o, m) with E[b - right | a, past, o_0] = 0, and the condition number of the
    system over the cells that occur."""
    past = torch.cat((log.obs[:, : t + 1], log.action[:, : t + 1]), 1)
    known, place = torch.unique(past, dim=0, return_inverse=True)
    share = torch.zeros(len(known)).double().index_add_(0, place, log.weight)
    joint = torch.zeros(len(known) * cells).double()
    joint = joint.index_add_(0, place * cells + cell, log.weight).view(-1, cells)
    target = torch.zeros(len(known), right.shape[1]).double()
    target.index_add_(0, place, log.weight[:, None] * right)
    projected = joint.T / share
    left = projected @ joint
    occurs = left.diagonal() > 0
    values = torch.linalg.eigvalsh(left[occurs][:, occurs])
    condition = float(values[-1] / values[0].clamp_min(1e-300))
    found = torch.linalg.solve(left + ridge * torch.eye(cells).double(), projected @ target)
    return found, condition
