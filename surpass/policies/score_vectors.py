"""Scores of trajectories and decisions as vectors, and the Bayesian gradient's weights from them.

For policies of few parameters: each score is as long as there are parameters, and with fewer
trajectories than parameters Fisher's kernel knows each trajectory from itself only.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from surpass.objectives.advantage import returns, with_columns
from surpass.objectives.bayesian_gradient import (
    action_values,
    differences,
    integrand_model,
    regular,
    return_model,
)
from surpass.objectives.reduce import decided
from surpass.parts import Nets, part
from surpass.policies.borrowed import Borrowed

__all__ = ["bayesian_critic", "bayesian_quadrature", "score_vectors", "state_fisher"]


def score_vectors(
    policy: Any, obs: Float[Tensor, "N T d"], action: Tensor, weight: Float[Tensor, "N T"]
) -> Float[Tensor, "N n"]:
    """grad of sum_t weight_t log pi(a_t|s_t) in all parameters, for each row."""
    own = dict(policy.named_parameters())

    def total(held: dict[str, Tensor], o: Tensor, a: Tensor, w: Tensor) -> Tensor:
        return (w * Borrowed(policy, held).logp(o, a)).sum()

    found = vmap(grad(total), (None, 0, 0, 0))(own, obs, action, weight)
    return torch.cat([g.flatten(1) for g in found.values()], 1)


def state_fisher(
    policy: Any, obs: Float[Tensor, "B T d"], own: Float[Tensor, "B T"], draws: int, tiny: float
) -> Float[Tensor, "n n"]:
    """The mean of grad log pi grad log pi' over the decisions made (`own`, 1 or 0), each action
    drawn anew `draws` times."""
    flat = obs.flatten(0, 1)
    action, _ = policy.sample(flat, draws)
    seen = flat.expand(draws, *flat.shape).flatten(0, 1)[:, None]
    counted = own.reshape(1, -1).expand(draws, -1).reshape(-1, 1)
    g = score_vectors(policy, seen, action.flatten(0, 1)[:, None].detach(), counted).double()
    return regular(g.mT @ g / counted.double().sum().clamp_min(1.0), tiny)


def _said(seq: Any, weight: Tensor) -> Any:
    """Weights as advantages whose mean over sequences is the gradient."""
    own = decided(seq.mask)
    return with_columns(seq, advantage=weight.detach().to(own.dtype) * own * own.shape[0])


@part
def bayesian_quadrature(
    nets: Nets, seq: Any, /, model: int = 1, sigma: float = 0.3, gamma: float = 1.0,
    draws: int = 8, tiny: float = 1e-3, net: str = "policy",
) -> Any:  # fmt: skip
    """A column `advantage`: the weight of each trajectory in the posterior mean of the gradient,
    Model 1 (`integrand_model`) or 2 (`return_model`), of returns less their mean. Fisher's matrix
    of a trajectory is that of its decisions in all (`state_fisher`): their scores are
    uncorrelated."""
    own = decided(seq.mask)
    U = score_vectors(nets[net], seq.obs, seq.action, own).double().mT
    y = returns(gamma=gamma)(seq)[:, 0].double()
    posterior = integrand_model if model == 1 else return_model
    G = state_fisher(nets[net], seq.obs, own, draws, tiny) * own.double().sum() / len(own)
    weight = posterior(U, y - y.mean(), G, sigma).weight
    return _said(seq, weight[:, None])


@part
def bayesian_critic(
    nets: Nets, seq: Any, /, sigma: float = 0.3, gamma: float = 1.0, width: float = 1.0,
    state: float = 1.0, noise: str = "returns", draws: int = 8, tiny: float = 1e-3,
    net: str = "policy",
) -> Any:  # fmt: skip
    """A column `advantage`: alpha of each decision (`action_values`). The state kernel is `state`
    exp(-|s - s'|^2 / (2 width^2)); all decisions are in one solve, a few thousand at most."""
    own = decided(seq.mask)
    B, T = own.shape
    flat = own.reshape(-1).double()
    obs, action = seq.obs.flatten(0, 1)[:, None], seq.action.flatten(0, 1)[:, None]
    U = score_vectors(nets[net], obs, action, own.reshape(-1, 1)).double().mT
    x = torch.where(own.reshape(-1, 1) > 0, seq.obs.flatten(0, 1).double(), 0.0)
    apart = (x[:, None] - x[None]).square().sum(-1)
    states = state * torch.exp(-0.5 * apart / width**2) * flat[:, None] * flat[None]
    later = torch.cat([own[:, 1:], torch.zeros_like(own[:, :1])], 1).reshape(-1).double()
    reward = torch.where(own > 0, seq.reward, 0.0).reshape(-1).double()
    G = state_fisher(nets[net], seq.obs, own, draws, tiny)
    found = action_values(U, reward, G, differences(later, gamma), states, sigma, noise)
    return _said(seq, found.weight.reshape(B, T))
