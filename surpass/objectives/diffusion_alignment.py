"""Aligning a diffusion policy with the values of a few candidate actions of each state.

A policy that knows its log-density under noise up to a constant has an implicit reward beside the
behavior that it started from, as a language model has beside its reference. Candidates of a state
share the level of noise, so that the constants cancel. Aligning Diffusion Behaviors with
Q-functions for Efficient Continuous Control (2024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["aligned", "softmax_cross_entropy"]


def softmax_cross_entropy(
    implicit: Float[Tensor, "M B"], worth: Float[Tensor, "M B"]
) -> Float[Tensor, "B"]:
    """-sum_i p_i log softmax(implicit)_i, p = softmax(worth) without gradient. With two candidates,
    one worth all, it is DPO's -log sigmoid of the difference."""
    return -(worth.softmax(0).detach() * torch.log_softmax(implicit, 0)).sum(0)


@part(needs=("support",))
def aligned(
    nets: Nets, rows: Rows, /, alpha: float = 3.0, beta: float = 1.0, q: str = "q_target",
    pi: str = "pi", mu: str = "mu",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The cross-entropy of softmax_i(beta (f(a^i_t|s, t) - f_mu(a^i_t|s, t))) to
    softmax_i(alpha min_j Q_j(s, a^i)) over the candidates a^i of a state, f and f_mu the energies
    of the policy and of the behavior, which has no gradient.

    With many candidates and beta 1 it is least where f - f_mu = log E[exp(alpha Q(s, a)) | a_t] + c
    at every t: where the policy is mu exp(alpha Q). Rows have the candidates as `support` [B, M k].
    """
    candidates = rows.support.unflatten(-1, (-1, rows.action.shape[-1])).movedim(1, 0)
    worth = nets[q](rows.obs, candidates).amin(0)
    noisy, level = nets[pi].disturbed(candidates)
    before = nets[mu].energy(rows.obs, noisy, level).detach()
    implicit = beta * (nets[pi].energy(rows.obs, noisy, level) - before)
    return softmax_cross_entropy(implicit, alpha * worth)
