"""What samples of a policy's return say: its mean, and its bad end."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from surpass.objectives.views import TrajectoryQuery
from surpass.parts import part

__all__ = ["mean_return", "tail_mean", "tail_of_returns"]


@part(needs=("returns",))
def mean_return(query: TrajectoryQuery, /) -> Float[Tensor, "N"]:
    """The mean of each episode's sampled returns, `extras["returns"]` [N, m]."""
    return query.extras["returns"].mean(1)


def tail_mean(samples: Float[Tensor, "... m"], share: float = 0.1) -> Float[Tensor, "..."]:
    """The mean of the worst `share` of samples (CVaR); at least one of them.

    Rockafellar and Uryasev, Optimization of conditional value-at-risk (2000).
    """
    count = max(round(share * samples.shape[-1]), 1)
    return samples.sort(-1).values[..., :count].mean(-1)


@part(needs=("returns",))
def tail_of_returns(query: TrajectoryQuery, /, share: float = 0.1) -> Float[Tensor, "N"]:
    """Scores whose mean is the CVaR over all episodes' samples together: q + min(z - q, 0) / share
    with q the quantile, averaged over each episode's samples."""
    z = query.extras["returns"]
    q = z.flatten().quantile(share)
    return (q + (z - q).clamp(max=0) / share).mean(1)
