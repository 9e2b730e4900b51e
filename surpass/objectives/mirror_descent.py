"""Mirror descent on a squashed Gaussian policy, from replay: what moves the policy, per row [B]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["mirror_ascent", "small_outputs"]


@part
def mirror_ascent(
    nets: Nets, rows: Rows, /, step: float = 1.0, lam: float = 0.2, q: str = "q", pi: str = "pi",
    old: str = "pi_old",
) -> Float[Tensor, "B"]:  # fmt: skip
    """log(pi / pi_old) / step + lam log pi_old - Q_1, of a ~ pi(.|s), reparameterized:

        E[Q_1(s, a)] - lam E[log pi_old(a|s)] - KL(pi(.|s) || pi_old(.|s)) / step

    is what it ascends: mirror descent from `old`, a frozen copy, on the value and on its entropy,
    which is linear in pi as it stands at `old`. Where step is 1 / lam, `old` cancels, and it is
    SAC's loss with the temperature lam.

    Mirror Descent Policy Optimization (2020).
    """
    mean, log_std = (x[:, 0] for x in nets[pi].parameters_of(rows.obs)[:2])
    center, log_spread = (x[:, 0].detach() for x in nets[old].parameters_of(rows.obs)[:2])
    noise = torch.randn(mean.shape, device=mean.device)
    u = mean + log_std.exp() * noise  # before the tanh, which has no way back at its ends
    logp, before = nets[pi].density(u, mean, log_std), nets[pi].density(u, center, log_spread)
    value = nets[q](rows.obs, torch.tanh(u), first=1)[0]
    return logp / step + (lam - 1.0 / step) * before - value


@part
def small_outputs(nets: Nets, rows: Rows, /, pi: str = "pi") -> Float[Tensor, "B"]:
    """mu(s)^2 + (log sigma(s))^2, the means over the action's dimensions: keeps a squashed policy
    off the flat ends of its tanh."""
    mean, log_std, _ = nets[pi].parameters_of(rows.obs)
    return (mean.square() + log_std.square()).mean((-2, -1))
