"""The table that `evaluate` gives: one row per policy and estimator."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from surpass.errors import InputError
from surpass.evaluation.intervals import Interval

__all__ = ["Evaluation", "Result"]


@dataclass(frozen=True)
class Result:
    """One policy under one estimator.

    Attributes:
        value, low, high: mean reward per decision, with its interval; `error` its standard error.
        gain, gain_low, gain_high: over the reference, paired row by row.
        reference: the reference's value under the same estimator.
        ess: effective sample size (sum w)^2 / sum w^2. support: the share of the policy's mass on
            actions that the logging policy takes (1 where only the logged propensity is known).
        mean_weight: mean importance ratio; far from 1 means missing support or wrong propensities.
        biased: True where more rows do not bring the value to the truth; such a row proves nothing.
        score: the formula, with hyperparameters that data chose filled in.
        joint: the gain's interval that holds for all policies at once, where there are several.
    """

    policy: str
    estimator: str
    value: float
    low: float
    high: float
    error: float
    gain: float
    gain_low: float
    gain_high: float
    gain_error: float
    reference: float
    ess: float
    support: float
    mean_weight: float
    max_weight: float
    biased: bool
    interval: str
    score: str
    assumptions: str = ""
    joint: Interval | None = None


@dataclass(frozen=True)
class Evaluation:
    """Results of `evaluate`. `reward` and `reward_error` are those of the log itself; `level` is
    what each interval leaves out; `per` is what is valued, a "decision" or an "episode"; `notes`
    say in sentences which estimators were taken, and why."""

    results: tuple[Result, ...]
    rows: int
    reward: float
    reward_error: float
    level: float
    per: str = "decision"
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, key: str | tuple[str, str]) -> Result:
        """By estimator, or by (policy, estimator).

        Raises:
            InputError: when there is none, or several of that name.
        """
        policy, name = key if isinstance(key, tuple) else (None, key)
        mine = [r for r in self.results if policy is None or r.policy == policy]
        found = [r for r in mine if r.estimator == name]
        if len(found) != 1:
            known = ", ".join(dict.fromkeys(r.estimator for r in self.results))
            raise InputError(
                f"{len(found)} results for {key!r}; estimators are {known}, and with several "
                "policies a result is reached by (policy, estimator)"
            )
        return found[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""

        def clean(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: clean(v) for k, v in value.items()}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {
            "rows": self.rows,
            "reward": self.reward,
            "level": self.level,
            "per": self.per,
            "notes": list(self.notes),
            "results": [clean(asdict(r)) for r in self.results],
        }

    def table(self) -> Table:
        """For the terminal."""
        share = f"{100 * (1 - self.level):g} %"
        several = len({r.policy for r in self.results}) > 1
        earned = "return" if self.per == "episode" else "reward"
        title = f"{self.rows:,} logged {self.per}s, mean {earned} {self.reward:.4g}"
        out = Table(title=title, title_style="bold")
        if several:
            out.add_column("policy")
        out.add_column("estimator", no_wrap=True)
        decisions = self.per == "decision"
        weighed = ("ess", "support", "max w") if decisions else ("ess", "max w")
        for name in ("value", share, "gain", share, *weighed):
            out.add_column(name, justify="right")
        out.add_column("bias")
        for r in self.results:
            support = [f"{r.support:.3f}"] if decisions else []
            cells = [
                r.estimator, f"{r.value:.4g}", f"{r.low:.4g} .. {r.high:.4g}", f"{r.gain:+.3g}",
                f"{r.gain_low:+.3g} .. {r.gain_high:+.3g}", _known(r.ess, ",.0f"),
                *support, _known(r.max_weight, ".3g"), "biased" if r.biased else "none",
            ]  # fmt: skip
            out.add_row(*([r.policy, *cells] if several else cells))
        return out

    def __str__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=120, color_system=None)
        console.print(self.table())
        for note in self.notes:
            console.print(note, highlight=False)
        return text.getvalue().rstrip()


def _known(value: float, how: str) -> str:
    return "-" if math.isnan(value) else format(value, how)
