"""Returns split into a value, the advantages of the agent (skill) and those of the world (luck):

    sum_{t<n} gamma^t r_t + gamma^n V(s_n)
        = V(s_0) + sum_{t<n} gamma^t [A(s_t, a_t) + gamma B(s_t, a_t, s_{t+1})]

for any path, whoever made it, and any policy pi: V = V^pi, A = Q^pi - V^pi, and
B(s, a, s') = V(s') - E[V(s')|s, a]. So a regression on paths needs no importance ratios.

"Skill or Luck? Return Decomposition via Advantage Functions" (2024).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = [
    "Paths", "Split", "decomposed_return", "outcome_bound", "skill_ascent", "split_by_regression",
    "suffix_returns",
]  # fmt: skip


def suffix_returns(
    paid: Float[Tensor, "B T"], ahead: Float[Tensor, "B"], mask: Float[Tensor, "B T"],
    gamma: float,
) -> Float[Tensor, "B T"]:  # fmt: skip
    """sum_{t=u}^{m-1} gamma^(t-u) paid_t + gamma^(m-u) ahead at every u of the m steps of a path,
    which come first; 0 behind them."""
    steps = torch.arange(paid.shape[1], device=paid.device)
    age = steps[None, :] - steps[:, None]
    weight = torch.where(age >= 0, gamma ** age.clamp_min(0).to(paid.dtype), 0.0)
    left = (mask.sum(-1, keepdim=True) - steps).clamp_min(0)
    return ((mask * paid) @ weight.T + gamma**left * ahead[:, None]) * mask


def _told(rows: Rows) -> Tensor:
    """What happened: the change of state, and whether the episode ended; [B T, d + 1]."""
    change = (rows.next_obs - rows.obs) * (1.0 - rows.terminated)[..., None]
    return torch.cat([change, rows.terminated[..., None]], -1).flatten(0, 1)


def _centered(nets: Nets, rows: Rows, advantage: str, pi: str) -> Float[Tensor, "B T"]:
    obs, action = rows.obs.flatten(0, 1), rows.action.flatten().long()
    f = nets[advantage].all(obs)[0]
    with torch.no_grad():
        chance = nets[pi].logits(obs).exp()
    centered = f - (chance * f).sum(-1, keepdim=True)
    return centered.gather(-1, action[:, None])[:, 0].unflatten(0, rows.reward.shape)


@part
def decomposed_return(
    nets: Nets, rows: Rows, /, gamma: float = 0.99, lucky: bool = True, v: str = "v",
    v_target: str = "v_target", advantage: str = "advantage", luck: str = "luck",
    outcomes: str = "outcomes", pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """(sum_{t<n} gamma^t (r_t - A_t - gamma B_t) + gamma^n V'(s_n) - V(s_0))^2 from every step of a
    segment to its end, the mean over its steps; the view is "segments", actions are discrete.

    A is centered by the policy, B by a model of outcomes: B = sum_z (q(z|s, a, s') - p(z|s, a))
    b(s, a, z); no gradient flows to either. V'(s_n) is 0 where the episode terminated. Without
    luck (`lucky` False, DAE) it is right where nothing is random, or on data of the policy itself.

    Raises:
        InputError: when the rows are of another view.
    """
    if rows.obs.dim() != 3:
        raise InputError('decomposed_return looks at paths: use the view "segments" of the log')
    shape, obs = rows.reward.shape, rows.obs.flatten(0, 1)
    rest = rows.reward - _centered(nets, rows, advantage, pi)
    if lucky:
        action = rows.action.flatten()
        with torch.no_grad():
            happened = nets[outcomes].posterior(obs, action, _told(rows)).exp()
            apart = happened - nets[outcomes].prior(obs, action).exp()
        rest = rest - gamma * (apart * nets[luck](obs, action)).sum(-1).unflatten(0, shape)
    last = (rows.mask.sum(-1).long() - 1)[:, None]
    with torch.no_grad():
        ahead = nets[v_target](rows.next_obs.flatten(0, 1))[0].unflatten(0, shape)
        ahead = ((1.0 - rows.terminated) * ahead).gather(1, last)[:, 0]
    y = suffix_returns(rest, ahead, rows.mask, gamma)
    error = (y - nets[v](obs)[0].unflatten(0, shape)).square()
    return (error * rows.mask).sum(-1) / rows.mask.sum(-1)


@part
def outcome_bound(nets: Nets, rows: Rows, /, outcomes: str = "outcomes") -> Float[Tensor, "B"]:
    """-(sum_z q(z) log p(s'|s, a, z) - KL(q || p(.|s, a))), the evidence bound of the model of
    outcomes, the mean over a segment's steps; at most -log p(s'|s, a) below."""
    obs, action, told = rows.obs.flatten(0, 1), rows.action.flatten(), _told(rows)
    net = nets[outcomes]
    q = net.posterior(obs, action, told)
    fit = net.log_likelihoods(obs, action, told)
    bound = (q.exp() * (fit - q + net.prior(obs, action))).sum(-1).unflatten(0, rows.mask.shape)
    return -(bound * rows.mask).sum(-1) / rows.mask.sum(-1)


@part
def skill_ascent(
    nets: Nets, rows: Rows, /, beta: float = 0.1, advantage: str = "advantage", pi: str = "pi",
    anchor: str = "pi_slow",
) -> Float[Tensor, "B"]:  # fmt: skip
    """-(sum_a pi(a|s) A(s, a) - beta KL(pi || pi_slow)), the mean over the steps of a segment."""
    obs = rows.obs.flatten(0, 1)
    f, logp = nets[advantage].all(obs)[0], nets[pi].logits(obs)
    with torch.no_grad():
        old = nets[anchor].logits(obs)
    gain = (logp.exp() * (f - f.mean(-1, keepdim=True) - beta * (logp - old))).sum(-1)
    return -(gain.unflatten(0, rows.mask.shape) * rows.mask).sum(-1) / rows.mask.sum(-1)


# ----------------------------------------------------------------------------------- in a table


class Paths(NamedTuple):
    """Paths of n steps of a table: `state` [N, n + 1], `action` and `reward` [N, n]."""

    state: Int[Tensor, "N T1"]
    action: Int[Tensor, "N T"]
    reward: Float[Tensor, "N T"]


class Split(NamedTuple):
    """`v` [S], `skill` A [S, A] and `luck` B [S, A, S']."""

    v: Float[Tensor, "S"]
    skill: Float[Tensor, "S A"]
    luck: Float[Tensor, "S A S"]


def split_by_regression(
    paths: Paths, pi: Float[Tensor, "S A"], gamma: float, chances: Any = None, *,
    skilled: bool = True, sweeps: int = 200, ridge: float = 1e-6, doubt: float = 0.1,
) -> Split:  # fmt: skip
    """The least-squares fit of V, A and B to paths, from every step to the end; the value at the
    end is that of the sweep before.

    Args:
        paths: of any behavior policy. pi: the policy that V and A are about.
        gamma: discount, below 1.
        chances: p(s'|s, a) [S, A, S'], by which luck is centered; None leaves luck out (DAE).
        skilled: False leaves A out as well: the plain n-step return.
        sweeps: at most so many, until values move by less than 1e-10. ridge: of V and A.
        doubt: the ridge of luck, in rows that saw none: outcomes that were hardly or never seen
            would fit noise.

    Raises:
        InputError: when gamma is not below 1, or the shapes of the paths do not fit.
    """
    if not 0 <= gamma < 1:
        raise InputError(f"gamma must lie in [0, 1), got {gamma}")
    if paths.action.numel() == 0 or paths.state.shape[1] != paths.action.shape[1] + 1:
        raise InputError(
            f"paths need some actions and one state more than actions, got states "
            f"{tuple(paths.state.shape)} and actions {tuple(paths.action.shape)}"
        )
    S, A = pi.shape
    s, a, s2 = paths.state[:, :-1], paths.action, paths.state[:, 1:]
    pair = s * A + a
    features = torch.eye(S * A, dtype=torch.float64) - pi.double().reshape(1, -1) * torch.eye(
        S, dtype=torch.float64).repeat_interleave(A, 0).repeat_interleave(A, 1)  # fmt: skip
    blocks = [torch.eye(S, dtype=torch.float64)[s]]
    after = []
    if skilled:
        after.append(features[pair])
    seen = torch.zeros(S * A, S, dtype=torch.bool)
    if chances is not None:
        P = chances.double().reshape(S * A, S)
        seen = P > 0
        at = seen.reshape(-1).nonzero()[:, 0]
        happened = (at[None, None] == (pair * S + s2)[..., None]).double()
        own = (at // S)[None, None] == pair[..., None]
        after.append(gamma * (happened - own * P.reshape(-1)[at]))
    # column blocks: V at the start of each suffix, then the discounted sums of A and B behind it
    X = torch.cat([blocks[0], *[_summed(x, gamma) for x in after]], -1).flatten(0, 1)
    paid = _summed(paths.reward.double()[..., None], gamma)[..., 0]
    left = torch.arange(a.shape[1], 0, -1, dtype=torch.float64)
    pull = torch.full((X.shape[1],), ridge, dtype=torch.float64)
    if chances is not None:
        pull[-int(seen.sum()) :] = doubt
    solve = torch.linalg.cholesky(X.T @ X + pull.diag())
    v, w = torch.zeros(S, dtype=torch.float64), torch.zeros(X.shape[1], dtype=torch.float64)
    for _ in range(sweeps):
        y = paid + gamma**left * v[paths.state[:, -1]][:, None]
        w = torch.cholesky_solve((X.T @ y.flatten())[:, None], solve)[:, 0]
        moved, v = float((w[:S] - v).abs().max()), w[:S]
        if moved < 1e-10:
            break
    skill = (features @ w[S : S + S * A]).reshape(S, A) if skilled else torch.zeros(S, A)
    luck = torch.zeros(S * A, S, dtype=torch.float64)
    if chances is not None:
        b = torch.zeros(S * A * S, dtype=torch.float64)
        b[seen.reshape(-1)] = w[-int(seen.sum()) :]
        b = b.reshape(S * A, S)
        P = chances.double().reshape(S * A, S)
        luck = (b - (P * b).sum(-1, keepdim=True)) * seen
    return Split(v, skill.double(), luck.reshape(S, A, S))


def _summed(x: Float[Tensor, "N T k"], gamma: float) -> Float[Tensor, "N T k"]:
    """sum_{t >= u} gamma^(t - u) x_t, in place of loops over pairs of steps."""
    out = x.clone()
    for u in range(x.shape[1] - 2, -1, -1):
        out[:, u] += gamma * out[:, u + 1]
    return out
