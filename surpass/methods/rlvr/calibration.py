"""CAPO: right answers end up more confident than wrong ones."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, copy, rollouts
from surpass.objectives.calibration import ranked, within_perplexity
from surpass.objectives.reduce import sequence_mean
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["capo_calibration"]


@system("capo-calibration")
def capo_calibration(
    tau: float = 0.6, right: float = 2.5, wrong: float = 1.05, pairs: bool = False,
    eps: float = 0.2, group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256,
    minibatches: int = 2,
) -> PolicyGradient:  # fmt: skip
    """Rewards replaced by the gradient of a surrogate of the area under the curve of confidence;
    answers that the reference finds too unlikely to be right, or too likely to be wrong, are left
    out (right=inf, wrong=0 keeps all)."""
    masked = right < float("inf") or wrong > 0
    advantage = ranked(tau, pairs=pairs)
    if masked:
        advantage = advantage * within_perplexity(right, wrong)
    return PolicyGradient(
        advantage, clip(eps, eps), reduce=sequence_mean(), minibatches=minibatches,
        nets={"reference": copy("policy")} if masked else {},
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
