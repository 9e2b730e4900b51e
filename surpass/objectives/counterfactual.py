"""What a policy is trained to make large on logged decisions: a value of its scores, [].

Any score of a logged decision (`objectives.scores`) that is differentiable in the target policy's
probabilities is an objective for learning: its mean, less what its spread costs. IPS, the
self-normalized and the doubly robust estimator differ in the score only; with a penalty on the
spread the mean becomes a lower confidence bound, and the policy that maximizes it the one that can
be proven best, not the one that looks best.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.scores import Score, modeled, paired, self_normalized, weighted
from surpass.objectives.views import Query
from surpass.parts import Part, part

__all__ = [
    "Objective", "counterfactual_risk", "doubly_robust_gain", "importance_gain",
    "self_normalized_gain", "standardized_gain",
]  # fmt: skip

Objective = Part[[Query], Tensor]
_TINY = 1e-12


@part
def counterfactual_risk(query: Query, /, score: Score, penalty: float = 0.0) -> Float[Tensor, ""]:
    """mean(score) - penalty sqrt(var(score) / N): the estimate, less its noise.

    Swaminathan and Joachims, Batch learning from logged bandit feedback through counterfactual
    risk minimization (2015): POEM is this with IPS scores.

    Args:
        score: of each logged decision, [N].
        penalty: how many standard errors are taken off; 0 maximizes the estimate itself.
    """
    rows = score(query)
    value = rows.mean()
    if isinstance(penalty, int | float) and penalty == 0:
        return value
    return value - penalty * (rows.var() + _TINY).sqrt() / rows.shape[-1] ** 0.5


@part
def standardized_gain(query: Query, /, score: Score) -> Float[Tensor, ""]:
    """mean(score) / sd(score): what a test of the gain sees of each row, sqrt(N) aside.

    With a paired score its maximum over all policies is the tilt of the reference in proportion
    to advantage over noise.
    """
    rows = score(query)
    return rows.mean() / (rows.var() + _TINY).sqrt()


def importance_gain() -> Score:
    """w r less the reference's: unbiased, and as noisy as the ratios."""
    return paired(weighted())


def self_normalized_gain() -> Score:
    """w r / mean(w) less the reference's: does not reward a policy for having large ratios where
    rewards are positive."""
    return paired(self_normalized())


def doubly_robust_gain() -> Score:
    """sum_a pi q + w (r - q) less the reference's."""
    return paired(weighted(baseline=modeled()))
