"""Whether a policy's yes-or-no answers are those of a fair coin, alone and in series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import stats

from surpass.forms import Study
from surpass.objectives.binary_series import Tested, battery, variance_ratio
from surpass.parts import part
from surpass.policies.binary_series import Teller, ask_alone, ask_in_series, market
from surpass.registry import system

__all__ = ["Bias", "binary_decision_bias", "probe"]


@dataclass(frozen=True)
class Bias:
    """Findings about one policy.

    Attributes:
        series, alone: the battery on answers in one context, and each in a context of its own.
        noise: how often, among as many fair coins, the battery flags anything in series.
        apart: p-value that both ways of asking alternate equally often.
        alone_rate, series_rate: of ones. variance_ratio: of the toy market, 1 for a random walk.
    """

    series: tuple[Tested, ...]
    alone: tuple[Tested, ...]
    noise: float
    apart: float
    alone_rate: float
    series_rate: float
    variance_ratio: float

    @property
    def flagged(self) -> tuple[str, ...]:
        """The properties in which series are not a fair coin's."""
        return tuple(t.name for t in self.series if t.flagged)

    def __str__(self) -> str:
        lines = [f"{'property':12} {'value':>8} {'fair':>8} {'p':>8}"]
        for t in self.series:
            mark = "  flagged" if t.flagged else ""
            lines.append(f"{t.name:12} {t.value:8.3f} {t.fair:8.3f} {t.p:8.2g}{mark}")
        lines.append(
            f"ones: {self.alone_rate:.3f} asked alone, {self.series_rate:.3f} in series "
            f"(alternation differs: p = {self.apart:.2g}); market variance ratio "
            f"{self.variance_ratio:.2f}; fair coins flagged: {self.noise:.0%}"
        )
        return "\n".join(lines)


@part
def probe(
    teller: Teller, /, series: int = 200, length: int = 50, level: float = 0.05, coins: int = 40,
    rounds: int = 2000, seed: int = 0,
) -> Bias:  # fmt: skip
    """Ask `series` series of `length` answers, and as many alone; test both, and as many fair
    `coins`; let the policy trade for some rounds."""
    batch, alone = (
        ask_in_series(teller, series, length, seed),
        ask_alone(teller, series, length, seed),
    )
    rng = np.random.default_rng((seed, 1))
    fair = [
        any(t.flagged for t in battery(rng.integers(2, size=(series, length)), level))
        for _ in range(coins)
    ]
    return Bias(
        battery(batch, level), battery(alone, level), float(np.mean(fair)) if fair else 0.0,
        _alternate_alike(batch, alone), float(alone.mean()), float(batch.mean()),
        variance_ratio(market(teller, rounds, seed=seed)),
    )  # fmt: skip


def _alternate_alike(a: Int[np.ndarray, "M L"], b: Int[np.ndarray, "M L"]) -> float:
    n = [x[:, 1:].size for x in (a, b)]
    k = [int((x[:, 1:] != x[:, :-1]).sum()) for x in (a, b)]
    table = np.array([[k[0], n[0] - k[0]], [k[1], n[1] - k[1]]])
    found: Any = stats.chi2_contingency(table + 0.5)
    return float(found.pvalue)


@system("binary-decision-bias")
def binary_decision_bias(
    series: int = 200, length: int = 50, level: float = 0.05, coins: int = 40
) -> Study:
    """Nine tests of binary answers: rate, memory, streaks; alone and in series, beside fair coins.

    `measure` takes a policy: a function from histories [M, t] of 0 and 1 to probabilities [M].

        study = surpass.binary_decision_bias()
        print(study.measure(surpass.policies.binary_series.gambler()))

    Args:
        series, length: how much is asked. level: of the battery, after Holm's correction.
        coins: fair coins that go through the same battery, so that false alarms are seen.
    """
    return Study(probe(series, length, level, coins))
