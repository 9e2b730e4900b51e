"""Losses on pairs and on scored sequences, a loss per row [B].

`Sides.margin` is z = Delta(y_w) - Delta(y_l); Delta is a sequence's log-ratio to the reference,
reduced by the form's ratio (`summed` or `averaged`). The same losses hold for sentences and for
trajectory segments.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.divergence import collision
from surpass.objectives.ratio import kept
from surpass.objectives.reduce import decided, total
from surpass.objectives.views import Side, Sides, Steps
from surpass.parts import part

__all__ = [
    "alignment", "both_nll", "bradley_terry", "chosen_nll", "hinge", "kto", "logistic",
    "odds_ratio", "quantile_regression", "regression", "robust", "squared",
]  # fmt: skip


@part
def logistic(
    s: Sides, /, beta: float = 0.1, smoothing: float = 0.0, margin: float = 0.0
) -> Float[Tensor, "B"]:
    """-(1 - e) log sigma(beta z - margin) - e log sigma(-(beta z - margin)).

    "Direct Preference Optimization: Your Language Model is Secretly a Reward Model" (2023); `e` is
    cDPO's label smoothing, `margin` SimPO's target reward margin.
    """
    z = beta * s.margin - margin
    return (1 - smoothing) * F.softplus(-z) + smoothing * F.softplus(z)


@part
def robust(s: Sides, /, beta: float = 0.1, rate: float = 0.1) -> Float[Tensor, "B"]:
    """[(1 - e) l(z) - e l(-z)] / (1 - 2 e) with l = softplus(-beta .): unbiased when labels flip at
    the rate e < 1/2, and unbounded below.

    "Provably Robust DPO: Aligning Language Models with Noisy Feedback" (2024).
    """
    z = beta * s.margin
    return ((1 - rate) * F.softplus(-z) - rate * F.softplus(z)) / (1 - 2 * rate)


@part
def hinge(s: Sides, /, beta: float = 0.1) -> Float[Tensor, "B"]:
    """max(0, 1 - beta z), "SLiC-HF: Sequence Likelihood Calibration with Human Feedback" (2023)."""
    return F.relu(1 - beta * s.margin)


@part
def squared(s: Sides, /, beta: float = 0.1) -> Float[Tensor, "B"]:
    """(z - 1 / (2 beta))^2, "A General Theoretical Paradigm to Understand Learning from Human
    Preferences" (2023), IPO."""
    return (s.margin - 1 / (2 * beta)).square()


@part
def odds_ratio(s: Sides, /) -> Float[Tensor, "B"]:
    """-log sigma(log odds(y_w) - log odds(y_l)), odds = p / (1 - p) of the mean likelihood per
    decision (`ratio=averaged()`, no reference).

    "ORPO: Monolithic Preference Optimization without Reference Model" (2024).
    """
    return F.softplus(_log_odds(s.rejected.delta) - _log_odds(s.chosen.delta))


def _log_odds(logp: Tensor) -> Tensor:
    logp = logp.clamp(max=-1e-7)
    return logp - torch.log(-torch.expm1(logp))


@part
def chosen_nll(s: Sides, /, mean: bool = True) -> Float[Tensor, "B"]:
    """The negative log-likelihood of the chosen sequence, its mean per decision or its sum."""
    loss = -kept(s.chosen.steps.logp, s.chosen.steps.mask).sum(-1)
    return loss / s.chosen.length.clamp_min(1) if mean else loss


@part
def both_nll(s: Sides, /, mean: bool = True) -> Float[Tensor, "B"]:
    """`chosen_nll` of both answers, averaged: imitation of pairs, whichever was preferred.

    From "Learning Dynamics of LLM Finetuning" (2025).
    """
    return 0.5 * (chosen_nll(mean)(s) + chosen_nll(mean)(s.swapped))


@part(needs=("score",))
def bradley_terry(s: Sides, /) -> Float[Tensor, "B"]:
    """-log sigma(r(y_w) - r(y_l)) of a scalar reward net, "Rank Analysis of Incomplete Block
    Designs" (1952)."""
    return F.softplus(s.rejected.reward - s.chosen.reward)


@part(needs=(collision,))
def alignment(s: Sides, /, cap: float = 1.0) -> Float[Tensor, "B"]:
    """min(cap, exp(m_w + m_l)), m the mean over decisions of log pi - log sum_v pi^2: how on-policy
    a pair is, whatever the entropy; a weight, to be stopped.

    "WPO: Enhancing RLHF with Weighted Preference Optimization" (2024).
    """

    def typical(steps: Steps) -> Tensor:
        own = decided(steps.mask)
        apart = kept(steps.logp - steps.extras["collision"], own).sum(-1)
        return apart / own.sum(-1).clamp_min(1)

    return (typical(s.chosen.steps) + typical(s.rejected.steps)).exp().clamp(max=cap)


# ------------------------------------------------------------------------------ scored sequences


@part(needs=("mismatched",))
def kto(
    s: Side, /, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0
) -> Float[Tensor, "B"]:
    """w (1 - sigma(beta Delta - z0)) where the label is positive, w (1 - sigma(z0 - beta Delta))
    elsewhere; z0 = beta max(0, mean Delta of mismatched pairs), stopped.

    `steps.extras["mismatched"]` [B] is Delta of each prompt with another row's completion.
    "KTO: Model Alignment as Prospect Theoretic Optimization" (2024).
    """
    other = s.steps.extras["mismatched"].detach()
    mean = total(other.sum()) / total(torch.ones_like(other).sum())
    z0 = beta * mean.clamp_min(0)
    good = s.reward > 0
    value = torch.sigmoid(torch.where(good, 1.0, -1.0) * (beta * s.delta - z0))
    return torch.where(good, desirable, undesirable) * (1 - value)


@part(needs=("group",))
def regression(s: Side, /, beta: float = 0.1) -> Float[Tensor, "B"]:
    """(beta (Delta_i - mean Delta) - (R_i - mean R))^2 over each group: differences of implicit
    rewards regress on differences of rewards.

    "REBEL: Reinforcement Learning via Regressing Relative Rewards" (2024).
    """
    assert s.group is not None
    same = (s.group[:, None] == s.group[None, :]).to(s.delta.dtype)
    count = same.sum(-1)
    implicit = beta * (s.delta - same @ s.delta / count)
    return (implicit - (s.reward - same @ s.reward / count)).square()


@part(needs=("reference_rewards",))
def quantile_regression(
    s: Side, /, beta: float = 0.1, transform: str = "identity"
) -> Float[Tensor, "B"]:
    """(f(q) - beta log Z - beta Delta)^2, q the share of reference answers to the prompt whose
    reward is at most this one's, Z the exact partition function of f(q) / beta.

    `steps.extras["reference_rewards"]` [B, m] holds the rewards of m answers of the reference; q is
    uniform there, so that Z is known: beta (e^(1/beta) - 1) for f = q, beta / (1 + beta) for log q
    (q >= 1/m), e^(1/(2 beta^2)) for the normal quantile (1/m <= q <= 1 - 1/m).

    "Quantile Reward Policy Optimization: Alignment with Pointwise Regression and Exact Partition
    Functions" (2025).

    Raises:
        InputError: without those rewards, or for another transform.
    """
    if "reference_rewards" not in s.steps.extras:
        raise InputError(
            "quantiles need a column reference_rewards: to each prompt, a list of the rewards of "
            "answers of the reference"
        )
    theirs = s.steps.extras["reference_rewards"]
    m = theirs.shape[-1]
    q = (theirs <= s.reward[:, None]).to(s.delta.dtype).mean(-1)
    if transform == "identity":
        target, log_z = q, 1 / beta + math.log(beta) + math.log1p(-math.exp(-1 / beta))
    elif transform == "log":
        target, log_z = q.clamp_min(1 / m).log(), -math.log1p(1 / beta)
    elif transform == "normal":
        target = torch.special.ndtri(q.clamp(min(1 / m, 0.5), max(1 - 1 / m, 0.5)))
        log_z = 1 / (2 * beta**2)
    else:
        raise InputError(f"transform is 'identity', 'log' or 'normal', not {transform!r}")
    return (target - beta * log_z - beta * s.delta).square()
