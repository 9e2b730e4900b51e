"""Eligibility traces off-policy: how much of a later temporal difference an earlier decision gets.

    G_t = Q(s_t, a_t) + sum_{u >= t} gamma^(u - t) beta_{t,u} delta_u,   beta_{t,t} = 1

A rule says how beta goes on by one step, from what it remembers and the ratio rho = pi / mu of the
action just taken; it may remember the whole past. The same rule serves a table that is updated step
by step, the targets of a critic's net, and the advantages of a policy gradient.

"Trajectory-Aware Eligibility Traces for Off-Policy Reinforcement Learning" (2023).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from surpass.errors import InputError
from surpass.objectives.advantage import Sequences, gae
from surpass.objectives.reduce import decided
from surpass.objectives.rows import Rows
from surpass.parts import Nets, Part, part

__all__ = [
    "Rule", "Trail", "actor_target", "contraction", "greedy_target", "recency_bounded",
    "recursive_retrace", "retrace", "trace_sums", "traced", "traced_gae", "traces", "truncated_is",
]  # fmt: skip

_MOST = 1e30  # a product of ratios stays a number


class Trail(NamedTuple):
    """What a rule sees at step t, for any number of earlier decisions at once.

    Attributes:
        held: what it remembers, 1 at the decision itself. ratio: rho_t. age: t, the steps since
            the decision, at least 1.
    """

    held: Tensor
    ratio: Tensor
    age: Tensor


Rule = Part[[Trail], tuple[Tensor, Tensor]]
"""From a `Trail` what is remembered next, and beta_t."""


@part
def retrace(p: Trail, /, lam: Any = 0.9) -> tuple[Tensor, Tensor]:
    """beta_t = lam min(1, rho_t) beta_{t-1}.

    "Safe and Efficient Off-Policy Reinforcement Learning" (2016).
    """
    trace = lam * p.ratio.clamp(max=1.0) * p.held
    return trace, trace


@part
def truncated_is(p: Trail, /, lam: Any = 0.9) -> tuple[Tensor, Tensor]:
    """beta_t = lam^t min(1, rho_1 ... rho_t): held is the product. It need not contract."""
    product = (p.ratio * p.held).clamp(max=_MOST)
    return product, lam**p.age * product.clamp(max=1.0)


@part
def recursive_retrace(p: Trail, /, lam: Any = 0.9) -> tuple[Tensor, Tensor]:
    """beta_t = lam min(1, rho_t beta_{t-1}).

    "Marginalized Operators for Off-policy Reinforcement Learning" (2022).
    """
    trace = lam * (p.ratio * p.held).clamp(max=1.0)
    return trace, trace


@part
def recency_bounded(p: Trail, /, lam: Any = 0.9) -> tuple[Tensor, Tensor]:
    """beta_t = min(lam^t, rho_t beta_{t-1}): what was cut may come back, up to lam^t (RBIS).

    Never below Retrace's trace; at lam = 1 it is recursive Retrace's; on-policy it is lam^t.
    """
    trace = torch.minimum(lam**p.age + torch.zeros_like(p.held), p.ratio * p.held)
    return trace, trace


def traces(
    rule: Rule, ratio: Float[Tensor, "B T"], own: Float[Tensor, "B T"] | None = None
) -> Float[Tensor, "B T T"]:
    """beta_{t,u} of every pair of decisions, [B, t, u]; 0 where u < t, 1 where u = t.

    Args:
        ratio: pi / mu of each action. own: 1 where there was a decision: time passes there only.
    """
    own = torch.ones_like(ratio) if own is None else decided(own)
    ratio = torch.where(own > 0, ratio, 1.0)
    length, count, columns = ratio.shape[1], own.cumsum(-1), []
    held = trace = ratio[:, :0]
    for u in range(length):
        if u:
            before = Trail(held, ratio[:, u : u + 1], count[:, u : u + 1] - count[:, :u])
            new, beta = rule(before)
            moved = own[:, u : u + 1] > 0
            held, trace = torch.where(moved, new, held), torch.where(moved, beta, trace)
        one = torch.ones_like(ratio[:, :1])
        held, trace = torch.cat([held, one], 1), torch.cat([trace, one], 1)
        columns.append(pad(trace, (0, length - 1 - u)))
    return torch.stack(columns, -1)


def trace_sums(
    rule: Rule,
    delta: Float[Tensor, "B T"],
    ratio: Float[Tensor, "B T"],
    gamma: float | Tensor = 0.99,
    own: Float[Tensor, "B T"] | None = None,
    over: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """sum_{u >= t} gamma^(u - t) beta_{t,u} delta_u at every decision, 0 elsewhere.

    Args:
        over: 1 at the last step of an episode, behind which nothing belongs to it.
    """
    mine = torch.ones_like(ratio) if own is None else decided(own)
    count = mine.cumsum(-1)
    age = (count[:, None, :] - count[:, :, None]).clamp_min(0)
    weight = gamma**age * traces(rule, ratio, own)
    if over is not None:
        ended = over.cumsum(-1) - over  # how many episodes ended before each step
        weight = weight * (ended[:, None, :] == ended[:, :, None])
    return (weight * (delta * mine)[:, None]).sum(-1) * mine


# ------------------------------------------------------------------------------- who is followed


@part
def greedy_target(
    nets: Nets, rows: Rows, /, epsilon: float = 0.1, q: str = "q_target"
) -> dict[str, Float[Tensor, "B T"]]:
    """The epsilon-greedy policy of a net of discrete actions: `taken` = Q(s, a), the lowest of the
    ensemble, `ahead` = sum_a' pi(a'|s') Q(s', a') exactly, and `log_pi` of the logged action."""
    here, there = (
        nets[q].all(obs.flatten(0, 1)).amin(0).unflatten(0, obs.shape[:2])
        for obs in (rows.obs, rows.next_obs)
    )
    action, count = rows.action.long()[..., None], here.shape[-1]
    best = (here.argmax(-1, keepdim=True) == action)[..., 0].to(here.dtype)
    chance = epsilon / count + (1.0 - epsilon) * best
    ahead = epsilon * there.mean(-1) + (1.0 - epsilon) * there.amax(-1)
    return {"taken": here.gather(-1, action)[..., 0], "ahead": ahead, "log_pi": chance.log()}


@part
def actor_target(
    nets: Nets, rows: Rows, /, q: str = "q_target", pi: str = "pi"
) -> dict[str, Float[Tensor, "B T"]]:
    """The same of an actor with continuous actions; `ahead` = Q(s', a') at one a' ~ pi."""
    shape = rows.obs.shape[:2]
    obs, after, action = (x.flatten(0, 1) for x in (rows.obs, rows.next_obs, rows.action))
    drawn, _ = nets[pi].sample(after)
    found = {
        "taken": nets[q](obs, action).amin(0), "ahead": nets[q](after, drawn).amin(0),
        "log_pi": nets[pi].logp(obs, action),
    }  # fmt: skip
    return {k: v.unflatten(0, shape) for k, v in found.items()}


@part(needs=("behavior_logp",))
def traced(
    nets: Nets, rows: Rows, /, rule: Any = recency_bounded(), target: Any = greedy_target(),
    gamma: float = 0.99, q: str = "q",
) -> Float[Tensor, "B"]:  # fmt: skip
    """A critic's loss toward G_t at every step of a segment of a log, mean over its steps, summed
    over the ensemble; the view is "segments". Bootstrapping stops at `terminated` only.

    Raises:
        InputError: when the rows are of another view.
    """
    if rows.obs.dim() != 3:
        raise InputError('traced looks at steps in order: use the view "segments" of the log')
    with torch.no_grad():
        known = target(nets, rows)
        ahead = gamma * (1.0 - rows.terminated) * known["ahead"]
        delta = rows.reward + ahead - known["taken"]
        ratio = (known["log_pi"] - rows.behavior_logp).exp()
        y = known["taken"] + trace_sums(rule, delta, ratio, gamma, rows.mask, rows.terminated)
    obs, action = rows.obs.flatten(0, 1), rows.action.flatten(0, 1)
    loss = nets[q].fit(obs, action, y.flatten()).sum(0).unflatten(0, y.shape)
    return (loss * rows.mask).sum(-1) / rows.mask.sum(-1)


@part(needs=("value", "log_ratio"))
def traced_gae(
    seq: Sequences, /, rule: Any = recency_bounded(0.95), gamma: float = 0.99
) -> dict[str, Tensor]:
    """`gae` on sequences that another policy made: A_t = sum_u gamma^(u - t) beta_{t,u} delta_u.

    `extras["log_ratio"]` [B, T] is log pi - log mu of the logged actions; where it is 0, A is that
    of `gae(gamma, lam)`. `value_target` = V + A.
    """
    assert seq.extras is not None
    delta = gae(gamma, 0.0)(seq)["advantage"]
    over = None
    for end in (seq.terminated, seq.truncated):
        if end is not None:
            end = end.to(delta.dtype)
            over = end if over is None else torch.maximum(over, end)
    own = decided(seq.mask)
    ratio = torch.where(own > 0, seq.extras["log_ratio"], 0.0).exp()
    advantage = trace_sums(rule, delta, ratio, gamma, own, over)
    return {"advantage": advantage, "value_target": (advantage + seq.extras["value"]) * own}


# ------------------------------------------------------------------------------ does it contract


def contraction(
    rule: Rule,
    P: Float[Tensor, "S A S"],
    pi: Float[Tensor, "S A"],
    mu: Float[Tensor, "S A"],
    gamma: float,
    terms: int = 120,
) -> Float[Tensor, "SA SA"]:
    """Z = sum_{t >= 1} gamma^t (B_{t-1} P_pi - B_t), cut after so many terms, with
    B_t[x, y] = E_mu[beta_t 1{(s_t, a_t) = y} | (s_0, a_0) = x]: the distance to Q^pi after a sweep
    is Z times that before it, so the rule contracts if the largest row sum of |Z| is below 1.

    Exact, by dynamic programming over the values that a trace can have; values that agree to 12
    digits are one. Their number must stay small, as it does with few actions and few ratios.
    """
    S, A = mu.shape
    n = S * A
    P, pi, mu = (x.double() for x in (P, pi, mu))
    P_pi = torch.einsum("xt,tb->xtb", P.reshape(n, S), pi).reshape(n, n)
    P_mu = torch.einsum("xt,tb->xtb", P.reshape(n, S), mu).reshape(n, n)
    rho = torch.where(mu > 0, pi / mu.clamp_min(1e-300), 0.0).reshape(n)
    # entries: at which pair (s, a), what is held, and the weight from every first pair
    at, held = torch.arange(n), torch.ones(n, dtype=torch.float64)
    weight = torch.eye(n, dtype=torch.float64)
    before, Z = torch.eye(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for t in range(1, terms + 1):
        i, y = (P_mu[at] > 0).nonzero(as_tuple=True)
        new, beta = rule(Trail(held[i], rho[y], torch.full_like(held[i], float(t))))
        moved = weight[i] * P_mu[at[i], y][:, None]
        B = torch.zeros(n, n, dtype=torch.float64).index_add_(0, y, moved * beta[:, None]).T
        Z += gamma**t * (before @ P_pi - B)
        at, held, place = _merged(y, new)
        weight = torch.zeros(len(at), n, dtype=torch.float64).index_add_(0, place, moved)
        before = B
    return Z


def _merged(y: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs and what is held, each once (values within 1e-12 of one another), and the place of
    every entry among them."""
    order = held.argsort(stable=True)
    order = order[y[order].argsort(stable=True)]
    a, v = y[order], held[order]
    first = torch.ones_like(a, dtype=torch.bool)
    first[1:] = (a[1:] != a[:-1]) | (v[1:] - v[:-1] > 1e-12 * v[1:].abs())
    place = torch.empty_like(y)
    place[order] = first.cumsum(0) - 1
    return a[first], v[first], place
