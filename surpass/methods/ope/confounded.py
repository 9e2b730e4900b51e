"""Policies from logs of an agent that saw more than was logged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.bridges import Bridged, Observed, bridge, memory_of, taken_with
from surpass.forms import Planner
from surpass.parts import Part, part
from surpass.registry import system

__all__ = ["MemoryPolicy", "ascent", "bridged", "confounded_pomdp_pg", "unconfounded"]


@dataclass(frozen=True)
class MemoryPolicy:
    """pi(a | o, m), m the observation before, as a table of probabilities [M, X, A]; what its
    gradient came from says its value and the condition number of the moments at the end."""

    probabilities: Float[Tensor, "M X A"]
    value: float
    condition: float


@part
def bridged(log: Observed, logits: Tensor, /, ridge: float = 1e-7) -> Bridged:
    """Value and gradient by bridge functions (`surpass.critics.bridges`)."""
    return bridge(log, logits, ridge)


@part
def unconfounded(log: Observed, logits: Tensor, /, memory: bool = True) -> Bridged:
    """Value and gradient by per-decision importance weights, as if the logged actions had depended
    on the observation (and the one before, with `memory`) only: what hidden causes mislead."""
    M, X, A = logits.shape
    theta = logits.detach().to(torch.float64).requires_grad_()
    with torch.enable_grad():
        pi = torch.softmax(theta, -1)
        ratio, value = torch.ones_like(log.weight), torch.zeros(()).double()
        for t in range(log.action.shape[1]):
            mu = _frequencies(log, t, M, memory)
            ratio = ratio * taken_with(pi, log, t) / taken_with(mu, log, t)
            value = value + log.weight @ (ratio * log.reward[:, t])
        (gradient,) = torch.autograd.grad(value, theta)
    return Bridged(float(value.detach()), gradient, 1.0)


def _frequencies(log: Observed, t: int, M: int, memory: bool) -> Float[Tensor, "M X A"]:
    """P(a | o, m) or P(a | o) of the log at a decision."""
    X, A = log.n_obs, log.n_actions
    at = (memory_of(log, t) * X + log.obs[:, t + 1]) * A + log.action[:, t]
    counts = torch.zeros(M * X * A).double().index_add_(0, at, log.weight).view(M, X, A)
    if not memory:
        counts = counts.sum(0, keepdim=True).expand(M, -1, -1)
    return counts / counts.sum(-1, keepdim=True).clamp_min(1e-300)


@part
def ascent(
    log: Observed, /, gradient: Part[[Observed, Tensor], Bridged], steps: int = 200,
    rate: float = 1.0,
) -> MemoryPolicy:  # fmt: skip
    """theta <- theta + rate g / max(|g|, 1) from the uniform policy, the gradient solved anew at
    every theta."""
    logits = torch.zeros(log.n_obs + 1, log.n_obs, log.n_actions, dtype=torch.float64)
    for _ in range(steps):
        g = gradient(log, logits).gradient
        logits = logits + rate * g / g.norm().clamp_min(1.0)
    found = gradient(log, logits)
    return MemoryPolicy(torch.softmax(logits, -1), found.value, found.condition)


@system("confounded-pomdp-pg")
def confounded_pomdp_pg(steps: int = 200, rate: float = 1.0, ridge: float = 1e-7) -> Planner:
    """Climb the value of a policy on what is observed, its gradient by bridge functions.

    `solve` takes `Observed` episodes, with one observation from before the first decision. Assumed,
    and not testable: that observation and the past are tied to outcomes through the hidden state
    alone, and they vary with it enough (`MemoryPolicy.condition` says how much).
    """
    return Planner(ascent(bridged(ridge), steps, rate))  # type: ignore[arg-type]
