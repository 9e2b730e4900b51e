"""Scores: what each logged decision says about a target policy's value. Their mean is the estimate.

Nearly every estimator for logged decisions is one weight and one baseline in

    score_i = v(x_i) + w_i (r_i - q_i)                                  `weighted(weight, baseline)`

and, where the weights are divided by their own mean, a smooth function of the means of such terms
(`smooth`), whose scores are its influence function. `linearized` makes scores from any value that
is differentiable in the weights of the rows. `lower` takes a score apart into terms to be averaged
and a function of the averages, which is how logs larger than memory are evaluated in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.selection import slope
from surpass.objectives.views import Query, ones_like_rows
from surpass.parts import Part, needs_of, part

__all__ = [
    "WHOLE",
    "Baseline",
    "Lowered",
    "Score",
    "Weight",
    "capped_by_power",
    "clipped",
    "explored",
    "importance",
    "linearized",
    "lower",
    "modeled",
    "mrdr_weight",
    "no_weight",
    "nothing",
    "of_reference",
    "paired",
    "self_normalized",
    "shrunk",
    "smooth",
    "subgaussian",
    "switched",
    "tuned",
    "weighted",
]  # fmt: skip

Score = Part[[Query], Tensor]
Weight = Part[[Query], Tensor]
Baseline = Part[[Query], tuple[Tensor, Tensor]]

WHOLE = "the whole log"
"""A need: the score of a row depends on the other rows, so the log must be in memory at once."""


# ----------------------------------------------------------------------------------------------
# weights, [N]: how much the reward of a logged decision counts for the target policy


@part
def importance(query: Query, /) -> Float[Tensor, "N"]:
    """w = pi(a|x) / mu(a|x). No bias.

    Horvitz and Thompson, A generalization of sampling without replacement from a finite universe
    (1952).
    """
    return query.ratio


@part
def no_weight(query: Query, /) -> Float[Tensor, "N"]:
    """w = 0: the baseline alone, which is the direct method."""
    return torch.zeros_like(query.reward)


@part
def clipped(query: Query, /, tau: float = 10.0) -> Float[Tensor, "N"]:
    """min(w, tau). Biased downward where rewards are positive.

    Ionides, Truncated importance sampling (2008).
    """
    return query.ratio.clamp(max=tau)


@part
def switched(query: Query, /, tau: float = 10.0) -> Float[Tensor, "N"]:
    """w where w <= tau, else 0: large ratios are left to the model. tau = inf is DR, tau = 0 is DM.

    Wang, Agarwal and Dudik, Optimal and adaptive off-policy evaluation in contextual bandits
    (2017).
    """
    ratio = query.ratio
    return torch.where(ratio <= tau, ratio, torch.zeros_like(ratio))


@part
def shrunk(query: Query, /, lam: float = 100.0) -> Float[Tensor, "N"]:
    """lam w / (w^2 + lam), optimistic shrinkage. lam = inf is DR, lam = 0 is DM.

    Su, Dimakopoulou, Krishnamurthy and Dudik, Doubly robust off-policy evaluation with shrinkage
    (2020).
    """
    ratio = query.ratio
    if math.isinf(lam):
        return ratio
    return lam * ratio / (ratio.square() + lam) if lam > 0 else torch.zeros_like(ratio)


@part
def subgaussian(query: Query, /, lam: float = 0.1) -> Float[Tensor, "N"]:
    """w / (1 - lam + lam w), the harmonic correction of the ratio; never above 1 / lam.

    Metelli, Russo and Restelli, Subgaussian and differentiable importance sampling for off-policy
    evaluation and learning (2021).
    """
    ratio = query.ratio
    return ratio / (1 - lam + lam * ratio)


@part
def capped_by_power(query: Query, /, alpha: float = 0.7) -> Float[Tensor, "N"]:
    """pi / mu^alpha, exponential smoothing. alpha = 1 is the importance ratio.

    Aouali, Brunel, Rohde and Korba, Exponential smoothing for off-policy learning (2023).
    """
    return query.logged_target / query.propensity.pow(alpha)


@part
def explored(query: Query, /, gamma: float = 0.01) -> Float[Tensor, "N"]:
    """pi / (mu + gamma), implicit exploration; never above 1 / gamma.

    Neu, Explore no more: improved high-probability regret bounds for non-stochastic bandits (2015).
    """
    return query.logged_target / (query.propensity + gamma)


@part
def mrdr_weight(query: Query, /) -> Float[Tensor, "N"]:
    """w^2 (1 - mu(a|x)): the weight of a row when fitting the reward model that makes DR's variance
    small.

    It is the diagonal of the quadratic form of Farajtabar, Chow and Ghavamzadeh, More robust
    doubly robust off-policy evaluation (2018); for a deterministic target it is their (1 - mu) /
    mu^2.
    """
    return query.ratio.square() * (1 - query.propensity)


# ----------------------------------------------------------------------------------------------
# baselines: v(x) and the prediction q(x, a) of the logged reward


@part
def nothing(query: Query, /) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """No reward model: v = q = 0."""
    zero = torch.zeros((), dtype=query.reward.dtype, device=query.reward.device)
    return zero, zero


@part(needs=("q",))
def modeled(query: Query, /) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """v = sum_a pi(a|x) q(x, a), and q(x, a) of the logged action."""
    return query.direct, query.logged_q


# ----------------------------------------------------------------------------------------------
# scores, [N]


@part
def weighted(
    query: Query, /, weight: Weight = importance(), baseline: Baseline = nothing()
) -> Float[Tensor, "N"]:
    """v + w (r - q). With the importance ratio: IPS without a model, DR with one.

    Dudik, Langford and Li, Doubly robust policy evaluation and learning (2011).
    """
    value, predicted = baseline(query)
    return value + weight(query) * (query.reward - predicted)


@part
def residual_terms(
    query: Query, /, weight: Weight = importance(), baseline: Baseline = nothing()
) -> Float[Tensor, "N 3"]:
    """v, w (r - q) and w: what a self-normalized estimate averages."""
    value, predicted = baseline(query)
    w = weight(query)
    return torch.stack((value.expand_as(w), w * (query.reward - predicted), w), -1)


@part
def normalized(mean: Float[Tensor, "... 3"], /) -> Float[Tensor, "..."]:
    """mean v + mean w (r - q) / mean w."""
    return mean[..., 0] + mean[..., 1] / mean[..., 2]


@part
def smooth(
    query: Query, /, terms: Part[[Query], Tensor], of: Part[[Tensor], Tensor]
) -> Float[Tensor, "N"]:
    """Scores of g(mean of terms): its value plus its influence function.

    Formula: score_i = g(m) + g'(m) . (terms_i - m), m the (weighted) mean of the terms. The mean of
    the scores is g(m), their spread over sqrt(n) the delta method's standard error.
    """
    rows = terms(query)
    weights = ones_like_rows(query).to(rows.dtype)
    mean = (weights[:, None] * rows).sum(0) / weights.sum()
    return of(mean) + (rows - mean) @ gradient_of(of, mean)


def gradient_of(of: Callable[[Tensor], Tensor], mean: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """The gradient of a value in the means of its terms; it is differentiable where they are."""
    with torch.enable_grad():
        at = mean if mean.requires_grad else mean.detach().requires_grad_()
        return torch.autograd.grad(of(at), at, create_graph=mean.requires_grad)[0]


def self_normalized(weight: Weight = importance(), baseline: Baseline = nothing()) -> Score:
    """v + w (r - q) / mean(w): SNIPS without a model, self-normalized DR with one.

    Swaminathan and Joachims, The self-normalized estimator for counterfactual learning (2015).
    """
    return smooth(residual_terms(weight, baseline), normalized())


@part(needs=(WHOLE,))
def linearized(
    query: Query, /, value: Part[[Any], Tensor], unit: str = "row"
) -> Float[Tensor, "U"]:
    """Scores from any value that is smooth in `query.weights`, by one backward pass through them.

    Formula: score_i = V + U (dV/dw_i - mean_j dV/dw_j) at w = 1, the empirical influence function
    (Hampel, The influence curve and its role in robust estimation, 1974). `value` must use
    `query.weights`, one per row, or one per `unit` (a column of `query.extras` that numbers
    the units from 0).

    Raises:
        InputError: when the value does not depend on the weights.
    """
    if unit == "row":
        weights = query.reward.new_ones(len(query.reward))
    else:
        count = int(query.extras[unit].max()) + 1
        weights = torch.ones(count, dtype=query.reward.dtype, device=query.reward.device)
    weights.requires_grad_()
    with torch.enable_grad():
        out = value(replace(query, weights=weights))
        if not out.requires_grad:
            raise InputError(f"{value!r} does not depend on query.weights; multiply rows by them")
        (gradient,) = torch.autograd.grad(out, weights)
    return out.detach() + len(weights) * (gradient - gradient.mean())


def of_reference(query: Query) -> Query:
    """The same rows, asked about the reference policy."""
    return replace(query, target=query.reference)


@part
def paired(query: Query, /, score: Score) -> Float[Tensor, "N"]:
    """The score of the target minus that of the reference on the same row: its mean is the gain.

    Where only the propensity of the logged action is known, the reference is the logging policy
    itself, whose score is the reward.
    """
    against = query.reward if query.reference is None else score(of_reference(query))
    return score(query) - against


@part
def tuned(query: Query, /, scores: tuple[Score, ...], rule: str = "paired") -> Float[Tensor, "N"]:
    """The one of several scores that `selection.slope` picks, from the least biased to the most.

    Su, Srinath and Krishnamurthy, Adaptive estimator selection for off-policy evaluation (2020).
    """
    rows = torch.stack([score(query) for score in scores])
    covariance = torch.cov(rows).view(len(rows), len(rows)) / rows.shape[-1]
    return rows[slope(rows.mean(-1), covariance, rule)]


# ----------------------------------------------------------------------------------------------
# a score taken apart


@dataclass(frozen=True)
class Lowered:
    """A score as terms to be averaged and a function of their averages.

    Attributes:
        terms: each from a query to [N] or [N, k].
        of: from the means of the terms, [...] or [..., k] each, to values [...].
        plain: the value is the mean of the one term.
    """

    terms: tuple[Callable[[Query], Tensor], ...]
    of: Callable[..., Tensor]
    plain: bool = False


def lower(score: Score) -> Lowered:
    """Take a score apart, so that it can be accumulated over batches of rows in one pass.

    Raises:
        InputError: when the score of a row depends on the whole log (`linearized`).
    """
    if WHOLE in needs_of(score):
        raise InputError(f"{score!r} needs the whole log in memory; evaluate it without streaming")
    if score.kind == "sum":
        first, second = lower(score.hyper["first"]), lower(score.hyper["second"])
        if not (first.plain and second.plain):
            split = len(first.terms)
            return Lowered(
                first.terms + second.terms, lambda *m: first.of(*m[:split]) + second.of(*m[split:])
            )
    elif score.kind == "scaled":
        inner, by = lower(score.hyper["inner"]), score.hyper["by"]
        if not inner.plain:
            return Lowered(inner.terms, lambda *m: by * inner.of(*m))
    elif score.name == "smooth":
        return Lowered((score.terms,), score.of)
    return Lowered((score,), lambda mean: mean, True)
