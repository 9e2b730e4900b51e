"""Weights over clusters of actions: what many actions cost, few clusters do not."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.views import Query
from surpass.parts import part

__all__ = ["cluster_importance"]


@part(needs=("cluster",))
def cluster_importance(query: Query, /) -> Float[Tensor, "N"]:
    """w = pi(c|x) / mu(c|x) of the logged action's cluster c, the sums of both policies over it.

    Every action its own cluster: the importance ratio. One cluster: 1. `query.extras["cluster"]`
    [N, A] numbers the cluster of every action. Saito and Joachims, Off-policy evaluation for large
    action spaces via embeddings (2022); with a conjunct effect model as baseline, Saito, Ren and
    Joachims, Off-policy evaluation for large action spaces via conjunct effect modeling (2023).

    Raises:
        InputError: when the log has the propensity of the logged action only.
    """
    if query.propensities is None:
        raise InputError(
            "cluster weights need the logging policy's probability of every action; give the "
            "columns of propensities, or an estimator such as dr"
        )
    cluster = query.extras["cluster"]
    same = cluster == cluster.gather(1, query.action[:, None])
    zero = torch.zeros((), dtype=query.target.dtype)
    shown = torch.where(same, query.propensities.to(query.target.dtype), zero).sum(-1)
    return torch.where(same, query.target, zero).sum(-1) / shown
