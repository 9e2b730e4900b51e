"""Certificates: bounds on a randomized policy's risk that hold for all policies at once, so that
they may be minimized on the log that they rest on.

The policy is a mixture pi_Q(a|x) = E_{theta ~ Q} 1{h_theta(x) = a} of rules, P a prior fixed before
the log was seen. Costs are c = -(r - low)/(high - low) in [-1, 0], the risk R(pi) = E c is the
negative value on that scale. A query's `target` is pi_Q and `extras["kl"]` is KL(Q || P). Every
bound holds for all Q with probability 1 - delta.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.views import Query
from surpass.parts import part

__all__ = [
    "bernstein",
    "catoni",
    "clipped_risk",
    "cost",
    "gaussian_kl",
    "smoothed",
    "smoothed_risk",
]

LAMBDAS = tuple(10 ** (k / 4) for k in range(-16, 5))


def gaussian_kl(
    mean: Float[Tensor, "..."], prior: Float[Tensor, "..."], log_spread: Tensor
) -> Float[Tensor, ""]:
    """KL of N(mean, s^2 I) from N(prior, I): (|mean - prior|^2 + D (s^2 - 1 - log s^2)) / 2."""
    s2 = (2 * log_spread).exp()
    return 0.5 * ((mean - prior).square().sum() + mean.numel() * (s2 - 1 - 2 * log_spread))


def cost(query: Query) -> Float[Tensor, "N"]:
    """c in [-1, 0]."""
    return -(query.reward - query.low) / (query.high - query.low)


def smoothed_risk(query: Query, alpha: float) -> Float[Tensor, ""]:
    """mean of pi(a|x) / mu(a|x)^alpha c."""
    return (query.logged_target / query.propensity.pow(alpha) * cost(query)).mean()


@part
def smoothed(
    query: Query, /, alpha: float = 0.9, delta: float = 0.05, rows: int = 0,
    tried: int = 1, lambdas: tuple[float, ...] = LAMBDAS,
) -> Float[Tensor, ""]:  # fmt: skip
    """R_alpha + sqrt(KL1 / 2n) + B + min_lambda [ KL2 / (n lambda) + lambda V / 2 ].

    KL1 = KL + log(4 sqrt n / delta), KL2 = KL + log(4 / delta), with
    B = 1 - mean sum_a mu^{1-alpha} pi, which is 0 at alpha = 1 together with its root, and
    V = mean [ sum_a pi mu^{1-2 alpha} + pi(a_i) mu(a_i)^{-2 alpha} c_i^2 ]. A union over lambdas
    and
    `tried` values of alpha divides delta. `rows` is n where the query is a batch of them.

    Aouali, Brunel, Rohde and Korba, Exponential smoothing for off-policy learning (2023).
    """
    n, kl, mu = rows or len(query.reward), query.extras["kl"], query.propensities
    assert mu is not None
    delta = delta / (len(lambdas) * tried)
    bias = 1 - (mu.pow(1 - alpha) * query.target).sum(-1).mean()
    first = torch.sqrt((kl + math.log(4 * math.sqrt(n) / delta)) / (2 * n))
    spread = (query.target * mu.pow(1 - 2 * alpha)).sum(-1).mean()
    logged = query.logged_target * query.propensity.pow(-2 * alpha) * cost(query).square()
    spread = spread + logged.mean()
    lam = torch.tensor(lambdas, dtype=spread.dtype)
    second = (kl + math.log(4 / delta)) / (n * lam) + lam / 2 * spread
    extra = bias + first if alpha < 1 else 0.0
    return smoothed_risk(query, alpha) + extra + second.min()


def clipped_risk(query: Query, tau: float, control: float = 0.0) -> Float[Tensor, ""]:
    """xi + mean of pi(a|x) / max(mu(a|x), tau) (c - xi), xi the control variate."""
    w = query.logged_target / query.propensity.clamp_min(tau)
    return control + (w * (cost(query) - control)).mean()


@part
def catoni(
    query: Query, /, tau: float = 0.05, delta: float = 0.05, rows: int = 0,
    lambdas: tuple[float, ...] = LAMBDAS,
) -> Float[Tensor, ""]:  # fmt: skip
    """min_lambda [ 1 - exp(-tau lambda R_clipped - (KL + log(2 sqrt n / delta)) / n) ]
    / (tau (e^lambda - 1)).

    Catoni, PAC-Bayesian supervised classification (2007), as used by London and Sandler, Bayesian
    counterfactual risk minimization (2019); the bound holds for all lambda, so none is paid for.
    """
    n, kl = rows or len(query.reward), query.extras["kl"]
    risk = clipped_risk(query, tau)
    lam = torch.tensor(lambdas, dtype=risk.dtype)
    inner = -tau * lam * risk - (kl + math.log(2 * math.sqrt(n) / delta)) / n
    return ((1 - inner.exp()) / (tau * torch.expm1(lam))).min()


@part
def bernstein(
    query: Query, /, tau: float = 0.05, control: float = -0.5, delta: float = 0.05, rows: int = 0,
    lambdas: tuple[float, ...] = LAMBDAS,
) -> Float[Tensor, ""]:  # fmt: skip
    """R_xi - xi B + sqrt(KL1 / 2n) + min_lambda [ KL2 / (lambda n) + lambda l g(lambda b) V ].

    KL1 = KL + log(4 sqrt n / delta), KL2 = KL + log(2 / delta), B = 1 - mean sum_a mu pi / m,
    V = mean sum_a mu pi / m^2 with m = max(mu, tau), b = (1 + xi) / tau - xi,
    l = max(xi^2, (1 + xi)^2), g(u) = (e^u - 1 - u) / u^2; a union over lambdas divides delta.

    Sakhi, Alquier and Chopin, PAC-Bayesian offline contextual bandits with guarantees (2023).
    """
    n, kl, mu = rows or len(query.reward), query.extras["kl"], query.propensities
    assert mu is not None
    delta = delta / len(lambdas)
    floor = mu.clamp_min(tau)
    bias = 1 - (mu * query.target / floor).sum(-1).mean()
    spread = (mu * query.target / floor.square()).sum(-1).mean()
    first = torch.sqrt((kl + math.log(4 * math.sqrt(n) / delta)) / (2 * n))
    lam = torch.tensor(lambdas, dtype=spread.dtype)
    u = lam * ((1 + control) / tau - control)
    g = torch.where(u < 1e-3, 0.5 + u / 6, (torch.expm1(u.clamp(max=50.0)) - u) / u.square())
    largest = max(control**2, (1 + control) ** 2)
    second = (kl + math.log(2 / delta)) / (lam * n) + lam * largest * g * spread
    return clipped_risk(query, tau, control) - control * bias + first + second.min()
