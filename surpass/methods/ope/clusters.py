"""Estimators for very many actions: importance weights on clusters, a model inside them."""

from __future__ import annotations

from surpass.critics.conjunct import ActionClusters, ConjunctEffects
from surpass.forms import Estimator
from surpass.objectives.clusters import cluster_importance
from surpass.objectives.scores import modeled, weighted
from surpass.registry import system

__all__ = ["off_cem"]


@system("off-cem")
def off_cem(
    clusters: int | tuple[int, ...] | None = None,
    penalty: float = 30.0,
    least: float = 0.2,
    seed: int = 0,
) -> Estimator:
    """OffCEM: v(x) + w(x, c) (r - f(x, a)), w the ratio of the logged action's cluster.

    Args:
        clusters: their number (k-means; by default the square root of the number of actions), or
            the cluster of each action.
        penalty: ridge penalty of the differences inside clusters. seed: of k-means.
        least: share of rows with a partner (same context, same cluster) below which the model is
            fitted in one step.
    """
    own = clusters if isinstance(clusters, tuple) else ()
    found = ActionClusters(None if isinstance(clusters, tuple) else clusters, own, seed)
    return Estimator(
        weighted(cluster_importance(), modeled()),
        {"q": ConjunctEffects(found, penalty, least), "cluster": found},
        needs=("propensities",),
        biased=True,
        assumptions="the model is right about differences between actions of one cluster, and "
        "every cluster of the target was possible",
    )
