"""Learning what would have been best on recorded demand, through the known dynamics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.forms import Planner
from surpass.parts import part
from surpass.registry import system

__all__ = ["Hindsight", "hdpo", "pathwise", "score_function"]

Cost = Callable[[Callable[..., Tensor], Tensor], Float[Tensor, "B"]]


class Hindsight(NamedTuple):
    """What is known: the cost [B] of a policy on traces, traces to learn from and to stop on, and
    the
    net to start from."""

    cost: Cost
    demand: Tensor
    held_out: Tensor
    policy: nn.Module


@part
def pathwise(
    known: Hindsight, /, steps: int = 300, batch: int = 256, rate: float = 3e-3, seed: int = 0,
    patience: int = 10,
) -> nn.Module:  # fmt: skip
    """Back-propagation through all periods of the traces, Adam with the gradient norm at most 1;
    the
    policy that was best on the held-out traces is kept, which are looked at every 10 steps."""
    policy, generator = copy.deepcopy(known.policy), torch.Generator().manual_seed(seed)
    descent = torch.optim.Adam(policy.parameters(), rate)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(descent, steps, 0.1 * rate)
    best, kept, since = float("inf"), copy.deepcopy(policy.state_dict()), 0
    for step in range(steps):
        at = torch.randint(len(known.demand), (batch,), generator=generator)
        loss = known.cost(policy, known.demand[at]).mean()
        descent.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        descent.step()
        plan.step()
        if step % 10 == 9:
            with torch.no_grad():
                now = float(known.cost(policy, known.held_out).mean())
            since = 0 if now < best else since + 1
            if since == 0:
                best, kept = now, copy.deepcopy(policy.state_dict())
            if since >= patience:
                break
    policy.load_state_dict(kept)
    return policy.eval()


@part
def score_function(
    known: Hindsight, /, steps: int = 300, batch: int = 256, rate: float = 3e-3, seed: int = 0
) -> nn.Module:
    """REINFORCE with the same net as the mean of a normal order, spread `log_spread`, advantages
    standardized over the batch: the baseline that does not look through the dynamics.

    Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
    learning (1992).
    """
    policy, generator = copy.deepcopy(known.policy), torch.Generator().manual_seed(seed)
    descent = torch.optim.Adam(policy.parameters(), rate)
    spread: Tensor = policy.log_spread  # type: ignore[assignment]
    best, kept = float("inf"), copy.deepcopy(policy.state_dict())
    for step in range(steps):
        at = torch.randint(len(known.demand), (batch,), generator=generator)
        logp: list[Tensor] = []

        def noisy(pipe: Tensor, logp: list[Tensor] = logp) -> Tensor:
            mean = policy(pipe)
            noise = torch.randn(mean.shape, generator=generator)
            order = (mean + spread.exp() * noise).detach()
            logp.append(-0.5 * ((order - mean) / spread.exp()) ** 2 - spread)
            return order.clamp_min(0)

        cost = known.cost(noisy, known.demand[at]).detach()
        gain = (cost.mean() - cost) / (cost.std() + 1e-6)
        loss = -(gain * torch.stack(logp).sum(0)).mean()
        descent.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        descent.step()
        if step % 10 == 9:
            with torch.no_grad():
                now = float(known.cost(policy, known.held_out).mean())
            if now < best:
                best, kept = now, copy.deepcopy(policy.state_dict())
    policy.load_state_dict(kept)
    return policy.eval()


@system("hdpo-inventory")
def hdpo(
    steps: int = 300, batch: int = 256, rate: float = 3e-3, seed: int = 0, patience: int = 10
) -> Planner:
    """Hindsight differentiable policy optimization: `solve` takes `Hindsight` and gives the policy
    that costs least on recorded demand.

    Args:
        steps, batch, rate: of Adam. seed: of the batches. patience: looks at the held-out traces
            without progress before it stops.
    """
    return Planner(pathwise(steps, batch, rate, seed, patience))
