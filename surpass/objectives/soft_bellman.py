"""Logits read as soft action values: residuals of the Bellman equation of KL-regularized control.

With f(s, a) the logits, V(s) = log sum_a exp f(s, a) and pi = softmax f, a policy is optimal for
E R - beta KL(pi || ref) when V(s_1) + sum_t log pi / ref = R / beta on every trajectory.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.advantage import Sequences, with_columns
from surpass.objectives.divergence import log_partition
from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided
from surpass.objectives.views import Steps
from surpass.parts import Nets, part

__all__ = ["soft_values", "token_residuals", "trajectory_residual"]


@part
def soft_values(nets: Nets, seq: Sequences, /, net: str = "reference") -> Any:
    """A column `soft_value` [B, T]: log sum_v exp of a net's logits before each decision."""
    found = nets[net].score(seq, (log_partition,))
    return with_columns(seq, soft_value=found.statistics[log_partition.__name__])


@part(needs=(log_partition, "ref_logp"))
def trajectory_residual(s: Steps, /, beta: float = 0.05) -> Float[Tensor, "B T"]:
    """(beta (V(s_1) + sum_t log pi - log ref) - R)^2 at each sequence's first decision.

    R is the advantage there (`returns()`). V stands for the log partition function of the prompt;
    where `extras["soft_value"]` holds the reference's, V is the difference to it, 0 at the start.

    "Trajectory Bellman Residual Minimization: A Simple Value-Based Method for LLM Reasoning"
    (2025).
    """
    own = decided(s.mask)
    first = own * (own.cumsum(-1) == 1)
    value = s.extras["log_partition"]
    if "soft_value" in s.extras:
        value = value - s.extras["soft_value"]
    assert s.ref_logp is not None, "name a reference: nets={'reference': copy('policy')}"
    apart = kept(s.logp - s.ref_logp, own)
    soft = kept(value, first).sum(-1) + apart.sum(-1)
    reward = kept(s.advantage, first).sum(-1)
    return (beta * soft - reward).square()[:, None] * torch.where(first > 0, first, 0.0)


@part(needs=(log_partition, "ref_logp"))
def token_residuals(s: Steps, /, beta: float = 0.05) -> Float[Tensor, "B T"]:
    """(sum over k >= t of r_k - beta (log pi - log ref)_k, less beta (V(s_t) - V_ref(s_t)))^2 at
    every decision t: the residual of `trajectory_residual` from each of them on, so that rewards
    inside a sequence teach at once.

    The reward to go is the advantage (`returns()`), `extras["soft_value"]` holds V_ref; without it
    logits are values only up to what the reference began with. What a tool writes is passed over.

    "ShiQ: Bringing back Bellman to LLMs" (2025).
    """
    own = decided(s.mask)
    assert s.ref_logp is not None, "name a reference: nets={'reference': copy('policy')}"
    apart = kept(s.logp - s.ref_logp, own)
    later = apart.flip(-1).cumsum(-1).flip(-1)
    value = s.extras["log_partition"]
    if "soft_value" in s.extras:
        value = value - s.extras["soft_value"]
    return kept(s.advantage - beta * (later + value), own).square()
