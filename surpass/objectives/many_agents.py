"""Pessimism about joint actions: one agent at a time, or all at once; and what each costs.

Counterfactual Conservative Q Learning for Offline Multi-agent Reinforcement Learning (2023).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.denoising import normal_logp
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = [
    "counterfactual_penalty", "counterfactual_samples", "greedy_double", "joint_divergence",
    "joint_penalty", "per_agent_divergence",
]  # fmt: skip


@part
def greedy_double(
    nets: Nets, rows: Rows, /, q: str = "q", target: str = "q_target"
) -> Float[Tensor, "B"]:
    """Q_target(s', a'), a' each agent's best by the trained utilities: double Q-learning."""
    return nets[target](rows.next_obs, nets[q].greedy(rows.next_obs))[0]


@part
def counterfactual_penalty(
    nets: Nets, rows: Rows, /, temperature: float = 5.0, q: str = "q", behavior: str = "behavior"
) -> Float[Tensor, "B"]:
    """sum_i lambda_i (logsumexp_{a'} Q(s, a', a_-i) - Q(s, a)), the others at the logged actions.

    lambda = softmax_i(temperature KL(mu_i || beta_i)) without gradient, mu_i the softmax of agent
    i's counterfactual values, beta_i its cloned behavior: temperature 0 weighs agents alike.
    """
    values = nets[q].counterfactual(rows.obs, rows.action)  # [B, n, A]
    excess = torch.logsumexp(values, -1) - nets[q](rows.obs, rows.action)[0][:, None]
    log_mu = torch.log_softmax(values, -1).detach()
    log_beta = nets[behavior].logits(rows.obs).detach()
    apart = (log_mu.exp() * (log_mu - log_beta)).sum(-1)
    return (torch.softmax(temperature * apart, -1) * excess).sum(-1)


@part
def joint_penalty(
    nets: Nets, rows: Rows, /, samples: int = 100, q: str = "q", actions: int = 0
) -> Float[Tensor, "B"]:
    """log sum exp over random joint actions of Q(s, a') - Q(s, a): CQL on the joint action, whose
    number grows exponentially with the agents."""
    net = nets[q]
    count = actions or net.utilities.actions
    drawn = torch.randint(count, (samples, *rows.action.shape), device=rows.obs.device)
    values = torch.logsumexp(net(rows.obs, drawn)[0], 0)
    return values - net(rows.obs, rows.action)[0]


@part
def counterfactual_samples(
    nets: Nets, rows: Rows, /, agents: int = 1, samples: int = 10, noise: float = 0.2,
    temperature: float = 5.0, q: str = "q", pi: str = "pi", behavior: str = "behavior",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The counterfactual penalty where actions are continuous, blocks [B, n k] of one row: the sum
    over critics of

        sum_i lambda_i (log sum_m exp(Q(s, a_i^m, a_-i) - log p(a_i^m)) - Q(s, a))

    over `samples` moves each of agent i from the uniform distribution, and from its policy at s and
    at s' with N(0, noise^2) (p is what they came from); lambda_i = softmax_i(-temperature log
    beta_i(pi_i)) without gradient, since that log-density is minus the divergence of the noisy
    policy from beta, up to a constant.
    """
    size = rows.action.shape[-1] // agents
    with torch.no_grad():
        here, there = nets[pi](rows.obs), nets[pi](rows.next_obs)
        jitter = noise * torch.randn(2, samples, *here.shape, device=here.device)
        uniform = torch.rand(samples, *here.shape, device=here.device) * 2.0 - 1.0
        near = (torch.stack([here, there])[:, None] + jitter).clamp(-1.0, 1.0)
        moves = torch.cat([uniform, *near])  # [3 m, B, n k]
        drawn = normal_logp(_blocks(jitter.flatten(0, 1), size), torch.zeros(()), noise)
        flat = torch.full_like(drawn[:samples], size * math.log(0.5))
        logp = torch.cat([flat, drawn]).movedim(-1, 0)  # [n, 3 m, B]
        strays = -temperature * nets[behavior].logps(rows.obs, here)
        weight = torch.softmax(strays, -1).T  # [n, B]
    own = torch.eye(agents, device=here.device, dtype=torch.bool).repeat_interleave(size, -1)
    joint = torch.where(own[:, None, None], moves, rows.action)  # [n, 3 m, B, n k]
    values = nets[q](rows.obs, joint.flatten(0, 1))
    values = values.reshape(-1, *joint.shape[:3])  # [critics, n, 3 m, B]
    pushed = torch.logsumexp(values - logp, 2)
    logged = nets[q](rows.obs, rows.action)[:, None]
    return (weight * (pushed - logged)).sum((0, 1))


def _blocks(x: Float[Tensor, "... nk"], size: int) -> Float[Tensor, "... n k"]:
    return x.reshape(*x.shape[:-1], -1, size)


# ----------------------------------------------------------------------------------------------
# how far policies are from behavior, exactly


def _chi_square(pi: Float[Tensor, "S n A"], beta: Float[Tensor, "S n A"]) -> Tensor:
    return (pi.square() / beta).sum(-1)


def joint_divergence(pi: Float[Tensor, "S n A"], beta: Float[Tensor, "S n A"]) -> Tensor:
    """E_s[prod_i sum_a pi_i^2 / beta_i - 1]: by how much joint pessimism underestimates, in units
    of
    alpha / (1 - gamma); exponential in n."""
    return (_chi_square(pi, beta).prod(-1) - 1).mean()


def per_agent_divergence(
    pi: Float[Tensor, "S n A"], beta: Float[Tensor, "S n A"], weight: Float[Tensor, "S n"]
) -> Tensor:
    """E_s[sum_i lambda_i (sum_a pi_i^2 / beta_i - 1)]: the same of one agent at a time."""
    return (weight * (_chi_square(pi, beta) - 1)).sum(-1).mean()
