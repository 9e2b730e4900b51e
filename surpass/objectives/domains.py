"""Learning from a log and a simulator that differ: which simulated steps to trust, and how much.

When to Trust Your Simulator: Dynamics-Aware Hybrid Offline-and-Online Reinforcement Learning (H2O,
2022). Batches mix both; rows of the log are the real ones. `nets.domains` gives two logits (see
`surpass.critics.domains`).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["dynamics_gap", "pushed_down", "tell_apart", "trusted"]


def is_real(rows: Rows, real: str) -> Bool[Tensor, "B"]:
    """Which rows are the log's."""
    return rows.source == rows.sources.index(real)


@part
def tell_apart(
    nets: Nets, rows: Rows, /, noise: float = 0.1, net: str = "domains", real: str = "log"
) -> Float[Tensor, "B"]:
    """The cross-entropy of both logits, inputs blurred by N(0, noise^2)."""
    blurred = [x + noise * torch.randn_like(x) for x in (rows.obs, rows.action, rows.next_obs)]
    before, added = nets[net](*blurred)
    label = is_real(rows, real).float()
    first = binary_cross_entropy_with_logits(before, label, reduction="none")
    return first + binary_cross_entropy_with_logits(before + added, label, reduction="none")


@part
def trusted(
    nets: Nets, rows: Rows, /, low: float = 1e-5, high: float = 1.0, net: str = "domains",
    real: str = "log",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The weight of a row's error: 1 for the log's, P_real(s'|s,a) / P_sim(s'|s,a), clipped, for
    the simulator's."""
    ratio = nets[net].added(rows.obs, rows.action, rows.next_obs).exp().clamp(low, high)
    return torch.where(is_real(rows, real), 1.0, ratio)


def dynamics_gap(
    nets: Nets, rows: Rows, samples: int = 10, spread: Tensor | float = 1.0, limit: float = 10.0,
    net: str = "domains",
) -> Float[Tensor, "B"]:  # fmt: skip
    """KL(P_sim || P_real) at (s, a), from `samples` next states around the one seen, clipped."""
    shape = (samples, *rows.next_obs.shape)
    around = rows.next_obs + spread * torch.randn(shape, device=rows.next_obs.device)
    obs, action = (x.expand(samples, *x.shape) for x in (rows.obs, rows.action))
    return (-nets[net].added(obs, action, around)).mean(0).clamp(1e-8, limit)


@part
def pushed_down(
    nets: Nets, rows: Rows, /, samples: int = 10, limit: float = 1_000.0, q: str = "q",
    net: str = "domains", real: str = "log",
) -> Float[Tensor, ""]:  # fmt: skip
    """log sum over simulated rows of omega e^Q - the mean Q of real rows, summed over the critics;
    omega the dynamics gap, normalized over the simulated rows."""
    known = is_real(rows, real)
    values = nets[q](rows.obs, rows.action)  # [n, B]
    with torch.no_grad():
        share = known.float() / known.float().sum().clamp(min=1.0)
        center = (share[:, None] * rows.next_obs).sum(0)
        spread = (share[:, None] * (rows.next_obs - center).square()).sum(0).sqrt()
        gap = dynamics_gap(nets, rows, samples, spread, net=net).masked_fill(known, 0.0)
        omega = (gap / gap.sum().clamp(min=1e-8)).log()  # -inf for real rows
    down = torch.logsumexp(torch.where(known, -torch.inf, values + omega), -1)
    return (down - (values * share).sum(-1)).clamp(-limit, limit).sum()
