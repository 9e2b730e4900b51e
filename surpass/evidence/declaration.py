"""How a system's claim is stated, so that a number decides it: one experiment, one bar, one rule.

    @evidence("prdc", claim="...", baseline="td3-bc, alpha tuned", metric="normalized return",
              bar=at_least(10), seeds=5, minutes=3)
    def prdc(seed: int, zoo: Zoo) -> Result: ...

The verdict: `holds` when the 95 % interval of the mean over seeds lies on the claimed side of the
bar, `fails` when it
lies on the other side, `inconclusive` when it straddles the bar. With further bars, all must hold.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from surpass.errors import InputError, nearest
from surpass.evidence.source import fingerprint
from surpass.registry import find

__all__ = [
    "Bar", "Experiment", "Finding", "Result", "Word", "at_least", "at_most", "declared",
    "evidence", "experiment", "judge", "overall",
]  # fmt: skip

Word = Literal["holds", "fails", "inconclusive"]
HERE = Path(__file__).parent
_DECLARED = re.compile(r'^@evidence\(\s*"([^"]+)"', re.MULTILINE)
_EXPERIMENTS: dict[str, Experiment] = {}


@dataclass(frozen=True)
class Bar:
    """What the claim has to reach.

    Attributes:
        value: the number. above: whether the claim is to be at least or at most that.
        of: what is compared: the "difference" ours - baseline, the ratio "times" (ours / baseline,
            averaged as
            logarithms), or "ours" alone.
    """

    value: float
    above: bool
    of: Literal["difference", "times", "ours"] = "difference"

    def __str__(self) -> str:
        what = {"difference": "ours - baseline", "times": "ours / baseline", "ours": "ours"}[
            self.of
        ]
        return f"{what} {'>=' if self.above else '<='} {self.value:g}"


def at_least(value: float, *, times: bool = False, alone: bool = False) -> Bar:
    """The difference to the baseline (or the ratio, or ours alone) is at least `value`."""
    return Bar(value, True, "times" if times else "ours" if alone else "difference")


def at_most(value: float, *, times: bool = False, alone: bool = False) -> Bar:
    """The difference to the baseline (or the ratio, or ours alone) is at most `value`."""
    return Bar(value, False, "times" if times else "ours" if alone else "difference")


@dataclass(frozen=True)
class Result:
    """What one seed gave: ours, the baseline's, and further pairs, each with its own bar.

    `also` maps a metric's name to (ours, baseline, bar), or to (ours, baseline) where it is only
    reported.
    """

    ours: float
    baseline: float
    also: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One metric over seeds: the compared number per seed, its mean, and its 95 % interval against
    the bar."""

    metric: str
    ours: tuple[float, ...]
    baseline: tuple[float, ...]
    bar: Bar | None
    mean: float
    low: float
    high: float
    verdict: Word | None


@dataclass(frozen=True)
class Experiment:
    """A declared experiment: `run(seed, zoo)` gives the result of one seed."""

    key: str
    claim: str
    baseline: str
    metric: str
    bar: Bar
    run: Callable[[int, Any], Result]
    seeds: int = 5
    minutes: float = 2.0
    setting: str = ""
    note: str = ""

    @property
    def fingerprint(self) -> str:
        """Of the experiment's code: results of another version are not continued."""
        return fingerprint(self.run)


def evidence(
    key: str,
    *,
    claim: str,
    baseline: str,
    metric: str,
    bar: Bar,
    seeds: int = 5,
    minutes: float = 2.0,
    setting: str = "",
    note: str = "",
) -> Callable[[Callable[[int, Any], Result]], Callable[[int, Any], Result]]:
    """Declare a system's experiment.

    Args:
        key: of the system. claim: in one sentence, as it can be checked here.
        baseline: what it is compared with, and how that was tuned. metric: what is measured, with
            its unit.
        bar: what the claim has to reach. seeds: how many, at least 3. minutes: on two cores, all
            seeds.
        setting: the problem, in one sentence. note: why it fails or stays open, in one honest
            sentence.

    Raises:
        InputError: when there are fewer than 3 seeds, or no such system.
    """
    find(key)
    if seeds < 3:
        raise InputError(f"evidence for {key}: {seeds} seeds are too few; at least 3")

    def register(run: Callable[[int, Any], Result]) -> Callable[[int, Any], Result]:
        _EXPERIMENTS[key] = Experiment(
            key, claim, baseline, metric, bar, run, seeds, minutes, setting, note
        )
        return run

    return register


@cache
def declared() -> dict[str, str]:
    """The module of every declared experiment, by key, read from the source."""
    places: dict[str, str] = {}
    for path in sorted(HERE.rglob("*.py")):
        module = "surpass.evidence." + ".".join(path.relative_to(HERE).with_suffix("").parts)
        if path.name != "declaration.py":
            for key in _DECLARED.findall(path.read_text(encoding="utf-8")):
                places[key] = module.removesuffix(".__init__")
    return places


def experiment(key: str) -> Experiment:
    """The experiment of a system.

    Raises:
        InputError: when there is no such system, or its experiment is not declared yet.
    """
    if key not in _EXPERIMENTS:
        find(key)
        if key not in declared():
            known = list(declared())
            raise InputError(f"no experiment is declared for {key}{nearest(key, known)}")
        importlib.import_module(declared()[key])
    return _EXPERIMENTS[key]


# ----------------------------------------------------------------------------------------------
# the rule


def judge(
    metric: str, ours: Sequence[float], baseline: Sequence[float], bar: Bar | None
) -> Finding:
    """The mean over seeds with its 95 % t interval, and which side of the bar it lies on."""
    a, b = np.asarray(ours, float), np.asarray(baseline, float)
    of = bar.of if bar is not None else "difference"
    compared = {"difference": a - b, "ours": a}.get(of)
    if compared is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            compared = np.log(a / b)
    mean, low, high = _interval(compared)
    if of == "times":
        mean, low, high = (float(np.exp(v)) for v in (mean, low, high))
    verdict: Word | None = None
    if bar is not None:
        verdict = "inconclusive"
        if np.isfinite([low, high]).all():
            above, below = low >= bar.value, high <= bar.value
            if above or below:
                exact = low == high == bar.value
                verdict = "holds" if exact or above == bar.above else "fails"
    return Finding(metric, tuple(a.tolist()), tuple(b.tolist()), bar, mean, low, high, verdict)


def _interval(x: np.ndarray) -> tuple[float, float, float]:
    mean = float(x.mean())
    if len(x) < 2:
        return mean, float("-inf"), float("inf")
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return mean, mean - half, mean + half


def overall(findings: Sequence[Finding]) -> Word:
    """All bars must hold; one that fails fails the claim."""
    words = [f.verdict for f in findings if f.verdict is not None]
    if "fails" in words:
        return "fails"
    return "inconclusive" if "inconclusive" in words else "holds"
