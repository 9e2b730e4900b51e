"""Estimators of a policy's whole return distribution."""

from __future__ import annotations

from surpass.critics.return_models import FittedReturns, MixtureReturns, ReturnModel
from surpass.forms import Estimator
from surpass.objectives.return_distribution import mean_return, tail_of_returns
from surpass.registry import system

__all__ = ["fle"]


@system("fle")
def fle(
    model: ReturnModel = MixtureReturns(), samples: int = 32, iterations: int | None = None,
    tail: float | None = None, rewards: str = "", seed: int = 0,
) -> Estimator:  # fmt: skip
    """Fitted likelihood estimation: returns of the target policy, sampled from a generative model
    that is fitted step by step. `FittedReturns.learn(query)(query)` gives the samples themselves.

    Args:
        model: mixture, diffusion or categorical (`surpass.critics.return_models`).
        samples: per episode. iterations: None for a model per step; else that many fits of one
            model, for discounted problems.
        tail: estimate the mean of the worst share of returns instead of the mean.
        rewards: a column of vector rewards, for joint distributions. seed: of fits and samples.
    """
    score = mean_return() if tail is None else tail_of_returns(tail)
    return Estimator(
        score,
        {"returns": FittedReturns(model, samples, iterations, rewards, seed)},
        unit="episode",
        biased=True,
        assumptions="the generative model can express every conditional return, and the log covers "
        "what the target does; its interval is that of first observations alone",
    )
