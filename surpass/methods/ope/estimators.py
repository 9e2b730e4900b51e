"""The classic estimators for logged decisions: one weight and one baseline each.

Where a hyperparameter is None, SLOPE chooses it from a grid by the data (see
`objectives.scores.tuned`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from surpass.critics.rewards import Reweighted
from surpass.forms import Estimator
from surpass.objectives.scores import (
    Score,
    Weight,
    capped_by_power,
    clipped,
    importance,
    modeled,
    mrdr_weight,
    no_weight,
    self_normalized,
    shrunk,
    subgaussian,
    switched,
    tuned,
    weighted,
)
from surpass.registry import system

__all__ = [
    "clipped_ips", "dm", "dr", "dros", "es_ips", "ips", "mrdr", "sg_ips", "sndr", "snips",
    "switch_dr",
]  # fmt: skip

RATIOS = (inf, 500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0)
SHRINKAGES = (inf, 1e5, 1e4, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0)
POWERS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
HARMONICS = (0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)

_KNOWN = "propensities are those of the log and every action of the target was possible"
_EVEN = f"{_KNOWN}; ratios are moderate (where few rows carry the weight, 95 % covers about 90 %)"
_CHOSEN = f"{_KNOWN}; the bias of the chosen hyperparameter is not in the interval"


def _by_data(value: float | None, grid: Sequence[float], score: Callable[[float], Score]) -> Score:
    """The score at a given hyperparameter, or the one that SLOPE picks, least biased first."""
    return tuned(tuple(score(v) for v in grid)) if value is None else score(value)


def _with_model(weight: Callable[[float], Weight]) -> Callable[[float], Score]:
    return lambda value: weighted(weight(value), modeled())


@system("ips")
def ips() -> Estimator:
    """Inverse propensity scoring: mean of w r."""
    return Estimator(weighted(importance()), assumptions=_EVEN)


@system("clipped-ips")
def clipped_ips(tau: float | None = None) -> Estimator:
    """Inverse propensity scoring with ratios clipped at tau."""
    score = _by_data(tau, RATIOS, lambda t: weighted(clipped(t)))
    return Estimator(score, biased=True, assumptions=_CHOSEN)


@system("snips")
def snips() -> Estimator:
    """Self-normalized inverse propensity scoring: sum w r / sum w."""
    return Estimator(
        self_normalized(importance()), biased=True, assumptions=f"{_EVEN}; bias of order 1/n"
    )


@system("dm")
def dm() -> Estimator:
    """The direct method: the reward model's word for the target policy."""
    return Estimator(
        weighted(no_weight(), modeled()), {"q": None}, biased=True,
        assumptions="the reward model is right; its interval is that of contexts alone",
    )  # fmt: skip


@system("dr")
def dr() -> Estimator:
    """Doubly robust: the reward model, corrected by weighted residuals."""
    return Estimator(weighted(importance(), modeled()), {"q": None}, assumptions=_KNOWN)


@system("sndr")
def sndr() -> Estimator:
    """Self-normalized doubly robust."""
    return Estimator(
        self_normalized(importance(), modeled()), {"q": None}, biased=True,
        assumptions=f"{_KNOWN}; bias of order 1/n",
    )  # fmt: skip


@system("switch-dr")
def switch_dr(tau: float | None = None) -> Estimator:
    """Doubly robust where the ratio is at most tau, the reward model elsewhere."""
    score = _by_data(tau, RATIOS, _with_model(switched))
    return Estimator(score, {"q": None}, biased=True, assumptions=_CHOSEN)


@system("dros")
def dros(lam: float | None = None) -> Estimator:
    """Doubly robust with optimistic shrinkage of the ratios."""
    score = _by_data(lam, SHRINKAGES, _with_model(shrunk))
    return Estimator(score, {"q": None}, biased=True, assumptions=_CHOSEN)


@system("sg-ips")
def sg_ips(lam: float | None = None) -> Estimator:
    """Inverse propensity scoring with the subgaussian (harmonic) correction of the ratios."""
    score = _by_data(lam, HARMONICS, lambda v: weighted(subgaussian(v)))
    return Estimator(score, biased=True, assumptions=_CHOSEN)


@system("es-ips")
def es_ips(alpha: float | None = None) -> Estimator:
    """Inverse propensity scoring with exponential smoothing: pi / mu^alpha, alpha in (0, 1]."""
    score = _by_data(alpha, POWERS, lambda a: weighted(capped_by_power(a)))
    return Estimator(score, biased=True, assumptions=_CHOSEN)


@system("mrdr")
def mrdr() -> Estimator:
    """Doubly robust with the reward model that is fitted to make its variance small."""
    return Estimator(
        weighted(importance(), modeled()), {"q": Reweighted(mrdr_weight())}, assumptions=_EVEN
    )
