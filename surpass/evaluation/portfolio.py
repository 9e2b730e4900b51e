"""What choosing policies by an estimate leads to: top-k portfolios, risk and return, and how good
the
estimates were where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from surpass.errors import InputError

__all__ = ["Portfolio", "accuracy", "compare", "cvar", "portfolio", "return_distribution"]

CAP = 100.0


@dataclass(frozen=True)
class Portfolio:
    """The k policies that an estimate puts first, by what they are really worth.

    Attributes:
        chosen: their numbers, best estimate first.
        best, worst, mean, std: of their true values; `std` divides by k - 1.
        regret: the best true value of all minus `best`.
        violations: the share of them below the safety threshold.
        sharpe: max(0, best - value of the logging policy) / std, in [0, 100]; nan at k = 1.
    """

    k: int
    chosen: tuple[int, ...]
    best: float
    worst: float
    mean: float
    std: float
    regret: float
    violations: float
    sharpe: float


def portfolio(
    estimated: Float[Tensor, "M"], true: Float[Tensor, "M"], logging: float, k: int,
    safe: float | None = None,
) -> Portfolio:  # fmt: skip
    """SharpeRatio@k of an estimator: the k policies that it would send to an online test.

    Kiyohara, Kishimoto, Kawakami, Kobayashi, Nakata and Saito, Towards assessing and benchmarking
    risk-return tradeoff of off-policy evaluation (2024); the spread is the sample standard
    deviation, as in their software.

    Args:
        estimated, true: values of the candidates. logging: true value of the logging policy.
        k: how many are chosen. safe: threshold of a violation, by default `logging`.

    Raises:
        InputError: when k is not between 1 and the number of candidates.
    """
    if not 1 <= k <= len(true):
        raise InputError(f"k lies between 1 and the {len(true)} candidates, not {k}")
    chosen = estimated.argsort(descending=True, stable=True)[:k]
    v = true[chosen].to(torch.float64)
    std = float(v.std()) if k > 1 else math.nan
    gain = max(0.0, float(v.max()) - logging)
    sharpe = math.nan if k == 1 else min(CAP, gain / std) if std > 0 else CAP * (gain > 0)
    threshold = logging if safe is None else safe
    return Portfolio(
        k, tuple(chosen.tolist()), float(v.max()), float(v.min()), float(v.mean()), std,
        float(true.max() - v.max()), float((v < threshold).double().mean()), sharpe,
    )  # fmt: skip


def accuracy(
    estimated: Float[Tensor, "M"], true: Float[Tensor, "M"], logging: float
) -> dict[str, float]:
    """What the portfolio metrics go beyond: `mse`, `rank` correlation (Spearman), and the rates of
    `type_1` and `type_2` errors of "better than the logging policy"."""
    better, said = true > logging, estimated > logging
    worse = ~better
    return {
        "mse": float((estimated - true).square().mean()),
        "rank": float(stats.spearmanr(estimated.numpy(), true.numpy())[0]),  # type: ignore[arg-type]
        "type_1": float((said & worse).sum() / worse.sum().clamp_min(1)),
        "type_2": float((~said & better).sum() / better.sum().clamp_min(1)),
    }


def compare(
    estimates: Mapping[str, Float[Tensor, "M"]], true: Float[Tensor, "M"], logging: float,
    ks: Sequence[int] = (), safe: float | None = None,
) -> dict[str, dict[str, object]]:  # fmt: skip
    """Every estimator's accuracy and its portfolio at each k (2 to M by default)."""
    wanted = list(ks) or list(range(2, len(true) + 1))
    return {
        name: {
            **accuracy(values, true, logging),
            "portfolios": [portfolio(values, true, logging, k, safe) for k in wanted],
        }
        for name, values in estimates.items()
    }


# ----------------------------------------------------------------------------------------------
# whole distributions


def return_distribution(
    returns: Float[Tensor, "N"], weight: Float[Tensor, "N"], normalized: bool = True
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """The target policy's distribution function of returns: sorted returns, and F at each.

    F(m) = mean of w 1[G <= m], w the episodes' ratios (`normalized`: divided by their mean), kept
    in [0, 1]. Huang, Leqi, Lipton and Azizzadenesheli, Off-policy risk assessment in contextual
    bandits (2021).
    """
    order = returns.argsort()
    total = weight.sum() if normalized else torch.tensor(float(len(weight)), dtype=weight.dtype)
    return returns[order], (weight[order].cumsum(0) / total).clamp(0.0, 1.0)


def cvar(returns: Float[Tensor, "N"], F: Float[Tensor, "N"], alpha: float = 0.1) -> float:
    """The mean of the worst share `alpha` of returns under a distribution function.

    Raises:
        InputError: when alpha is not in (0, 1].
    """
    if not 0 < alpha <= 1:
        raise InputError(f"alpha lies in (0, 1], not {alpha}")
    mass = torch.diff(F.clamp(max=alpha), prepend=F.new_zeros(1))
    return float((mass * returns).sum() / mass.sum().clamp_min(1e-12))
