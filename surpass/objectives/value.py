"""Losses of actors and state values: what moves toward what the critics say, per row [B]."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = [
    "ascend", "clone", "entropic", "expectile", "maximize", "monte_carlo", "near",
    "quantile_expectile", "scaled_by_coin", "soft_value", "temperature",
]  # fmt: skip


def _asymmetric(error: Tensor, tau: float) -> Tensor:
    return torch.where(error > 0, tau, 1.0 - tau) * error.square()


@part
def expectile(
    nets: Nets, rows: Rows, /, tau: float = 0.7, q: str = "q_target", v: str = "v"
) -> Float[Tensor, "B"]:
    """|tau - 1(u < 0)| u^2, u = min_i Q_i(s, a) - V(s): V becomes the tau-expectile of Q over the
    logged actions, near their best as tau nears 1.

    Offline Reinforcement Learning with Implicit Q-Learning (IQL, 2021).
    """
    target = nets[q](rows.obs, rows.action).amin(0)
    return _asymmetric(target - nets[v](rows.obs), tau).sum(0)


@part
def quantile_expectile(
    nets: Nets, rows: Rows, /, tau: float = 0.7, alpha: float = 0.25, q: str = "q_target",
    v: str = "v",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The expectile loss toward the alpha-quantile over the ensemble of Q.

    Towards Robust Offline Reinforcement Learning under Diverse Data Corruption (RIQL, 2023).
    """
    target = torch.quantile(nets[q](rows.obs, rows.action), alpha, dim=0)
    return _asymmetric(target - nets[v](rows.obs), tau).sum(0)


@part(needs=("return_to_go",))
def monte_carlo(nets: Nets, rows: Rows, /, v: str = "v") -> Float[Tensor, "B"]:
    """(G - V(s))^2, G the logged return from the step on: the behavior policy's value."""
    return (rows.return_to_go - nets[v](rows.obs)).square().sum(0)


@part
def clone(nets: Nets, rows: Rows, /, pi: str = "pi", reduce: str = "mean") -> Float[Tensor, "B"]:
    """The loss of imitating the logged action: -log pi(a|s), or the squared error where the policy
    is deterministic: its mean over the action's dimensions, or their "sum"."""
    loss = nets[pi].imitation(rows.obs, rows.action)
    return loss * rows.action.shape[-1] if reduce == "sum" else loss


@part
def maximize(
    nets: Nets, rows: Rows, /, scale: float | None = None, over: str = "first", q: str = "q",
    pi: str = "pi",
) -> Float[Tensor, "B"]:  # fmt: skip
    """-Q(s, pi(s)), of the first critic, their minimum ("min") or mean ("mean").

    With `scale` it is weighed by scale / mean |Q|, so that it keeps its size beside other terms:
    A Minimalist Approach to Offline Reinforcement Learning (TD3+BC, 2021).
    """
    critics = nets[q]
    action = nets[pi](rows.obs)
    if over == "first":
        value = critics(rows.obs, action, first=1)[0]
    else:
        values = critics(rows.obs, action)
        value = values.amin(0) if over == "min" else values.mean(0)
    if scale is not None:
        value = value * (scale / value.detach().abs().mean().clamp(min=1e-8))
    return -value


def scaled_by_coin(values: Float[Tensor, "n B"], crossed: bool = False) -> Float[Tensor, "B"]:
    """Q_i / mean |Q_i|, i the first or the second critic by the toss of a coin for the batch, so
    that neither's errors are climbed for long; `crossed` divides by the other one's mean size. No
    gradient flows through the divisor."""
    coin = torch.rand((), device=values.device) < 0.5
    climbed = torch.where(coin, values[0], values[1])
    other = torch.where(coin, values[1], values[0]) if crossed else climbed
    return climbed / other.detach().abs().mean().clamp(min=1e-8)


@part
def ascend(
    nets: Nets, rows: Rows, /, scale: float = 1.0, q: str = "q", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """-scale Q_i(s, a) / mean |Q_j(s, a)|, a ~ pi(.|s) with the gradient through all that drew it,
    i and j the twin critics in an order that a coin decides.

    Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning (2022).
    """
    action, _ = nets[pi].sample(rows.obs)
    return -scale * scaled_by_coin(nets[q](rows.obs, action), crossed=True)


@part
def near(nets: Nets, rows: Rows, /, target: Any, pi: str = "pi") -> Float[Tensor, "B"]:
    """The squared distance of pi(s) to the action that `target` names, [B, k], mean over its
    dimensions."""
    return (nets[pi](rows.obs) - target(nets, rows).detach()).square().mean(-1)


@part
def entropic(
    nets: Nets, rows: Rows, /, over: str = "min", q: str = "q", pi: str = "pi",
    alpha: str = "alpha", target: float | None = None, fixed: float | None = None,
    near: float = 0.0,
) -> dict[str, Float[Tensor, "B"]]:  # fmt: skip
    """SAC's actor and its temperature in one pass: terms "actor" and "temperature".

        actor = alpha log pi(a|s) - min_i Q_i(s, a),   a ~ pi, reparameterized
        temperature = -log alpha (log pi(a|s) + target),   target = -dim(a) where not given

    The step trains both nets, `train(("pi", "alpha"), entropic())`; neither term's gradient reaches
    the other's net. A `fixed` temperature drops the second term; `near` adds near |a - a_log|^2 to
    the actor's, summed over dimensions.

    Soft Actor-Critic Algorithms and Applications (2018).
    """
    action, logp = nets[pi].sample(rows.obs)
    values = nets[q](rows.obs, action)
    value = values.amin(0) if over == "min" else values.mean(0)
    if near:
        value = value - near * (action - rows.action).square().sum(-1)
    if fixed is not None:
        return {"actor": fixed * logp - value}
    goal = -float(rows.action.shape[-1]) if target is None else target
    dual = nets[alpha]
    return {
        "actor": dual().detach() * logp - value,
        "temperature": -dual.log_value * (logp.detach() + goal),
    }


@part
def temperature(
    nets: Nets, rows: Rows, /, target: float | None = None, pi: str = "pi", alpha: str = "alpha"
) -> Float[Tensor, "B"]:
    """-log alpha (log pi(a|s) + target) with a ~ pi: raises alpha where the entropy is below
    -target (dim(a) where not given)."""
    _, logp = nets[pi].sample(rows.obs)
    goal = -float(rows.action.shape[-1]) if target is None else target
    return -nets[alpha].log_value * (logp.detach() + goal)


@part
def soft_value(
    nets: Nets, rows: Rows, /, lam: float = 0.2, q: str = "q", v: str = "v", pi: str = "pi"
) -> Float[Tensor, "B"]:
    """(V(s) - (min_i Q_i(s, a) - lam log pi(a|s)))^2, a ~ pi: the value of a state to a policy that
    is paid lam for its entropy.

    Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
    Actor (2018), the version with a net of its own for V.
    """
    action, logp = nets[pi].sample(rows.obs)
    target = (nets[q](rows.obs, action).amin(0) - lam * logp).detach()
    return (nets[v](rows.obs) - target).square().sum(0)
