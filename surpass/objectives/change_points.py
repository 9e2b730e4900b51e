"""When a series changed: a sequential rank test whose false alarms come at a chosen rate."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

__all__ = ["alarm_thresholds", "begun", "largest_split"]


def largest_split(
    series: Float[np.ndarray, "n t"], *, drops: bool = True
) -> tuple[Float[np.ndarray, "n"], np.ndarray]:
    """The largest standardized Mann-Whitney statistic over all splits of each series, and the
    split:

        D = max_k (U_k - k (t - k) / 2) / (k (t - k) (t + 1) / 12)^(1/2),

    U_k the number of pairs in which one of the first k values is above one of the rest (half a pair
    for ties). Hawkins and Deng, A nonparametric change-point control chart (2010).

    Args:
        drops: look for drops only; otherwise for changes in either direction.
    """
    t = series.shape[1]
    k = np.arange(1, t)
    above = rankdata(series, axis=1).cumsum(1)[:, :-1] - k * (k + 1) / 2
    score = (above - k * (t - k) / 2) / np.sqrt(k * (t - k) * (t + 1) / 12)
    score = score if drops else np.abs(score)
    split = score.argmax(1)
    return score[np.arange(len(score)), split], split + 1


def begun(series: Float[np.ndarray, "t"]) -> int:
    """Where the mean changed: the split k that maximizes k (t - k) / t (m_1 - m_2)^2, the least
    squares fit of one step. It sees sizes, so it dates a large change better than ranks do."""
    t = len(series)
    k = np.arange(1, t)
    left = series.cumsum()[:-1]
    gap = left / k - (series.sum() - left) / (t - k)
    return int((k * (t - k) * gap**2).argmax()) + 1


@lru_cache(maxsize=8)
def alarm_thresholds(
    run_length: int, warmup: int = 20, last: int = 60, drops: bool = True, streams: int = 5_000,
    seed: int = 0,
) -> tuple[float, ...]:  # fmt: skip
    """h_t for t = 1 to `last` (serving later t too): without a change, D_t exceeds h_t with
    probability 1 / run_length, given that there was no alarm before; infinite up to `warmup`.

    The statistic knows ranks only, so that simulated noise of any kind serves all series.

    Args:
        run_length: how many batches pass between false alarms, on average.
        warmup: batches without alarms. last: of the thresholds. streams: simulated.
    """
    x = np.random.default_rng(seed).random((streams, last))
    found = [np.inf] * warmup
    for t in range(warmup + 1, last + 1):
        value = largest_split(x[:, :t], drops=drops)[0]
        found.append(float(np.quantile(value, 1 - 1 / run_length)))
        x = x[value <= found[-1]]
    raw = np.array(found[warmup:])
    smooth = [raw[max(i - 4, 0) : i + 5].mean() for i in range(len(raw))]  # h_t hardly moves with t
    return (*found[:warmup], *map(float, smooth))
