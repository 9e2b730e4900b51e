"""Several policies on one log: which would be sent to a test, and what would come of it.

For every estimator the policies that it puts first, k = 1, 2, ..., are judged by numbers that it
did not see: the truth, where the log's is known; else an estimator without bias on the other half
of the log, both ways. That is the protocol of SCOPE-RL (Kiyohara, Kishimoto, Kawakami, Kobayashi,
Nakata and Saito, Towards assessing and benchmarking risk-return tradeoff of off-policy evaluation,
2024), with held-out rows where it asks for the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from surpass.data.records import Decisions, Sequences, Transitions
from surpass.errors import InputError
from surpass.evaluation.policies import evaluate, loaded_policy, opened_for
from surpass.evaluation.portfolio import accuracy, cvar, portfolio, return_distribution
from surpass.evaluation.results import Evaluation
from surpass.evaluation.targets import target_probabilities
from surpass.evaluation.trajectories import padded, trajectory_query

__all__ = ["Comparison", "Risk", "Row", "compare", "portfolios"]

JUDGES = ("dr", "drt", "ips", "pdis")
ALPHA = 0.1  # the worst share of returns that CVaR averages
_POINTS = 200


@dataclass(frozen=True)
class Row:
    """The k policies that an estimator puts first, by what the judge says of them.

    Attributes:
        chosen: names, best estimate first. best, mean, worst, std: of the judge's values.
        regret: what the best of all is worth beyond the best of these. sharpe: SharpeRatio@k.
        violations: the share of them below the logging policy.
    """

    estimator: str
    k: int
    chosen: tuple[str, ...]
    best: float
    mean: float
    worst: float
    std: float
    regret: float
    sharpe: float
    violations: float


@dataclass(frozen=True)
class Risk:
    """One policy's whole distribution of rewards (of returns, for episodes), by importance weights.

    Attributes:
        mean, cvar, median: of it; `cvar` is the mean of its worst tenth. below: the chance of less
            than the log's mean. x, F: the distribution function, thinned for a picture.
    """

    policy: str
    mean: float
    cvar: float
    median: float
    below: float
    x: tuple[float, ...] = ()
    F: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What `compare` gives.

    Attributes:
        evaluation: the table of all policies and estimators on the whole log.
        judge: what the portfolios are judged by, in words; "" where there is no judge.
        judged: its value of every policy, `logging` of the logging policy.
        rows: the portfolios. ranks: per estimator `rank` correlation with the judge, `type_1`,
            `type_2` errors of "better than the logging policy".
        risks: per policy; empty where there are no ratios.
    """

    evaluation: Evaluation
    judge: str = ""
    judged: Mapping[str, float] = field(default_factory=dict)
    logging: float = math.nan
    rows: tuple[Row, ...] = ()
    ranks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    risks: tuple[Risk, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the estimators, and of the judge where there is none."""
        if self.judge:
            return self.evaluation.notes
        said = "No estimator without bias is there to judge a choice by; play them with --env ID."
        return (*self.evaluation.notes, said)

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            **self.evaluation.to_json(),
            "comparison": _plain({
                "judge": self.judge, "judged": dict(self.judged), "logging": self.logging,
                "portfolios": [vars(r) for r in self.rows], "ranks": dict(self.ranks),
                "risks": [vars(r) for r in self.risks],
            }),
        }  # fmt: skip

    def tables(self) -> list[Table]:
        """For the terminal: portfolios, then risk and return."""
        out = []
        if self.rows:
            title = f"Top-k portfolios with SharpeRatio@k, judged by {self.judge}"
            table = Table(title=title, title_style="bold")
            table.add_column("estimator")
            for name in ("k", "best", "mean", "worst", "std", "regret", "Sharpe", "below",
                         "rank"):  # fmt: skip
                table.add_column(name, justify="right")
            table.add_column("chosen", overflow="fold")
            for r in self.rows:
                rank = self.ranks[r.estimator]["rank"] if r.k == 1 else math.nan
                cells = (f"{r.best:.4g}", f"{r.mean:.4g}", f"{r.worst:.4g}", _known(r.std),
                         f"{r.regret:.3g}", _known(r.sharpe), f"{r.violations:.0%}",
                         _known(rank))  # fmt: skip
                name = r.estimator if r.k == 1 else ""
                table.add_row(name, str(r.k), *cells, ", ".join(r.chosen))
            out.append(table)
        if self.risks:
            table = Table(title="Risk and return, by importance weights", title_style="bold")
            table.add_column("policy")
            for name in ("mean", "median", "mean of the worst tenth", "below the log's mean"):
                table.add_column(name, justify="right")
            for r in self.risks:
                table.add_row(r.policy, f"{r.mean:.4g}", f"{r.median:.4g}", f"{r.cvar:.4g}",
                              f"{r.below:.0%}")  # fmt: skip
            out.append(table)
        return out


def compare(
    policies: Mapping[str, Any],
    logs: Any,
    estimators: str | Sequence[str] = "auto",
    *,
    columns: Mapping[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> Comparison:
    """Evaluate several policies and ask what choosing by each estimator would lead to.

    Args:
        policies: by name, each as `surpass.evaluate` takes it, but no arrays of the log's rows.
        logs, estimators, columns, options: as in `surpass.evaluate`.
        seed: of the halves.

    Raises:
        InputError: with fewer than two policies, or where the log cannot be evaluated on.
    """
    if len(policies) < 2:
        raise InputError("give at least two policies to compare")
    options = {**options, "seed": seed}
    whole = evaluate(policies, logs, estimators, columns=columns, **options)
    loaded = {k: loaded_policy(p) for k, p in policies.items()}
    opened = {k: opened_for(logs, p, columns or {}) for k, p in loaded.items()}
    held = {k: log.read() if hasattr(log, "read") else log for k, log in opened.items()}
    risks = tuple(_risk(k, loaded[k], held[k], options.get("gamma")) for k in loaded)
    known = tuple(r for r in risks if r is not None)
    truth = getattr(next(iter(opened.values())), "truth", None)
    judged = _truth(truth, loaded, held) if truth is not None else None
    if truth is not None and judged is not None:
        rows, ranks = portfolios(_values(whole), judged, truth.value())
        return Comparison(whole, "the truth", judged, truth.value(), rows, ranks, known)
    judge = next((j for j in JUDGES if any(r.estimator == j for r in whole)), None)
    first = next(iter(held.values()))
    if judge is None or not isinstance(first, Decisions | Transitions | Sequences):
        return Comparison(whole, risks=known)
    halves = [
        _merged([
            evaluate({k: loaded[k]}, _half(held[k], side, seed), estimators, columns=None,
                     **options)
            for k in loaded
        ])
        for side in (0, 1)
    ]  # fmt: skip
    both = []
    for choosing, judging in (halves, halves[::-1]):
        values = {k: judging[k, judge].value for k in loaded}
        reference = judging[next(iter(loaded)), judge].reference
        both.append((*portfolios(_values(choosing), values, reference), values, reference))
    judged = {k: 0.5 * (both[0][2][k] + both[1][2][k]) for k in loaded}
    logging = 0.5 * (both[0][3] + both[1][3])
    rows, ranks = _averaged(both, _values(whole))
    return Comparison(whole, f"{judge} on the other half of the log, both ways", judged, logging,
                      rows, ranks, known)  # fmt: skip


def portfolios(
    estimated: Mapping[str, Mapping[str, float]], judged: Mapping[str, float], logging: float
) -> tuple[tuple[Row, ...], dict[str, dict[str, float]]]:
    """The portfolios of every estimator at every k, and how it ranks.

    Args:
        estimated: by estimator, then by policy. judged: what the policies are worth. logging: what
            the logging policy is worth.
    """
    rows, ranks = [], {}
    for name, values in estimated.items():
        keys = [k for k in judged if k in values and math.isfinite(values[k])]
        if len(keys) < 2:
            continue
        guess = torch.tensor([values[k] for k in keys], dtype=torch.float64)
        true = torch.tensor([judged[k] for k in keys], dtype=torch.float64)
        found = accuracy(guess, true, logging)
        ranks[name] = {k: found[k] for k in ("rank", "type_1", "type_2")}
        for k in range(1, len(keys) + 1):
            p = portfolio(guess, true, logging, k)
            chosen = tuple(keys[i] for i in p.chosen)
            rows.append(Row(name, k, chosen, p.best, p.mean, p.worst, p.std, p.regret, p.sharpe,
                            p.violations))  # fmt: skip
    return tuple(rows), ranks


def _averaged(
    both: Sequence[Any], values: Mapping[str, Mapping[str, float]]
) -> tuple[tuple[Row, ...], dict[str, dict[str, float]]]:
    """The mean of two ways of halving; the names are those that the whole log puts first. What one
    half could not say of all policies, for want of overlap, is left out."""
    (one, ranks_one, *_), (two, ranks_two, *_) = both
    other = {(r.estimator, r.k): r for r in two}
    rows = []
    for a in one:
        b = other.get((a.estimator, a.k))
        if b is None:
            continue
        order = sorted(a.chosen if a.k == len(values[a.estimator]) else values[a.estimator],
                       key=lambda k, e=a.estimator: -values[e][k])  # fmt: skip
        means = [0.5 * (getattr(a, n) + getattr(b, n)) for n in (
            "best", "mean", "worst", "std", "regret", "sharpe", "violations")]  # fmt: skip
        rows.append(Row(a.estimator, a.k, tuple(order[: a.k]), *means))
    ranks = {
        e: {k: 0.5 * (ranks_one[e][k] + ranks_two[e][k]) for k in ranks_one[e]}
        for e in ranks_one
        if e in ranks_two
    }
    return tuple(rows), ranks


def _values(found: Evaluation) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for r in found:
        out.setdefault(r.estimator, {})[r.policy] = r.value
    return out


def _merged(parts: Sequence[Evaluation]) -> Evaluation:
    return replace(parts[0], results=tuple(r for part in parts for r in part))


def _half(log: Any, side: int, seed: int) -> Any:
    """Half of the log's units (groups, episodes, rows), drawn once; `side` 0 or 1."""
    if isinstance(log, Transitions):
        unit = torch.unique_consecutive(log.episode, return_inverse=True)[1]
    elif isinstance(log, Decisions) and log.group is not None:
        unit = torch.unique(log.group, return_inverse=True)[1]
    else:
        unit = torch.arange(len(log))
    count = int(unit.max()) + 1
    mark = torch.from_numpy(np.random.default_rng(seed).permutation(count)) % 2
    return log[mark[unit] == side].described(log.about)


def _risk(name: str, policy: Any, log: Any, gamma: float | None) -> Risk | None:
    """The distribution of rewards of a policy, from the ratios of single decisions or of whole
    episodes; None where there are none."""
    if isinstance(log, Decisions):
        target = target_probabilities(policy, log, log.propensities, 0, name)
        chosen = target.gather(1, log.action.long()[:, None])[:, 0]
        paid, weight = log.reward.double(), chosen / log.propensity.double()
    elif isinstance(log, Transitions | Sequences):
        query = trajectory_query(policy, padded(log) if isinstance(log, Transitions) else log,
                                 1.0 if gamma is None else gamma)  # fmt: skip
        if query.target is None or query.propensity is None:
            return None
        paid, weight = query.paid, query.ratio.prod(1)
    else:
        return None
    if not float(weight.sum()) > 0:
        return None
    x, F = return_distribution(paid, weight)
    mean = float((weight * paid).sum() / weight.sum())
    mark = torch.linspace(0, len(x) - 1, min(_POINTS, len(x))).long()
    middle = float(x[min(int((F < 0.5).sum()), len(x) - 1)])
    below = float((weight * (paid < paid.mean())).sum() / weight.sum())
    return Risk(name, mean, cvar(x, F, ALPHA), middle, below, tuple(x[mark].tolist()),
                tuple(F[mark].tolist()))  # fmt: skip


@torch.no_grad()
def _truth(
    truth: Any, policies: Mapping[str, Any], held: Mapping[str, Any]
) -> dict[str, float] | None:
    """True values, where the population is known and the policies act on contexts."""
    rows = len(truth.contexts)
    out = {}
    for name, policy in policies.items():
        log = held[name]
        if isinstance(policy, Tensor | np.ndarray) and policy.ndim > 1:
            return None
        asked = Decisions(
            context=truth.contexts.to(log.context.dtype), action=torch.zeros(rows).long(),
            reward=torch.zeros(rows), propensity=torch.ones(rows), propensities=truth.logging,
            batch_size=[rows],  # type: ignore[call-arg]
        ).described(log.about)  # fmt: skip
        out[name] = float(truth.value(target_probabilities(policy, asked, truth.logging, 0, name)))
    return out


def _known(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
