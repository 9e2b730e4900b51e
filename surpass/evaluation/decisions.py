"""What a policy is worth on logged decisions: several estimators, each with its interval and its
gain over the reference, in memory or streaming over batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor

from surpass.critics.rewards import Nuisance, Predictor, Ridge, cross_fitted
from surpass.data.records import Decisions
from surpass.errors import InputError, nearest
from surpass.evaluation.estimation import Cell, Panel, Readout
from surpass.evaluation.intervals import Interval, bernstein_from, max_t, percentile
from surpass.evaluation.results import Evaluation, Result
from surpass.evaluation.targets import target_probabilities
from surpass.forms import Estimator
from surpass.objectives.scores import WHOLE
from surpass.objectives.views import Query
from surpass.parts import needs_of
from surpass.registry import build

__all__ = ["DEFAULT", "Evaluation", "Result", "evaluate"]

DEFAULT = (
    "ips", "clipped-ips", "snips", "dm", "dr", "sndr", "switch-dr", "dros", "sg-ips", "mrdr",
)  # fmt: skip
_METHODS = ("bootstrap", "normal", "bernstein", "guarded")


def evaluate(
    policy: Any,
    logs: Decisions | Iterable[Decisions],
    estimators: Sequence[str] | Mapping[str, Estimator] = DEFAULT,
    *,
    reference: Any = None,
    reward_model: Nuisance | None = None,
    level: float = 0.05,
    interval: str = "normal",
    resamples: int = 1000,
    reward_range: tuple[float, float] | None = None,
    folds: int = 5,
    fit_rows: int | None = None,
    chunk: int = 16_384,
    seed: int = 0,
) -> Evaluation:
    """The value of one or several policies on logged decisions.

    Args:
        policy: probabilities [N, A], [A] or [N, A, positions]; an object with
            `probabilities(context)`; a module with `forward(context, reference)`; a function of the
            context; or a mapping of names to such.
        logs: decisions in memory, or batches of them (an iterator, or an object with `batches()`),
            which are read once and never held: memory does not grow with rows or resamples.
        estimators: keys such as "dr", or estimators by name.
        reference: what gains are over, in the same forms; the logging policy when not given.
        reward_model: the model of q(x, a) for estimators that name none of their own.
        level: what an interval leaves out, both sides together.
        interval: "normal" (delta method; in simulations it covered as well as the bootstrap, and
            better where overlap is poor), "bootstrap" (multipliers, percentile), or, with
            `reward_range`, "bernstein" or "guarded" for scores that are not self-normalized, where
            rows do not come in groups (the others fall back to "bootstrap").
        resamples: of the bootstrap.
        reward_range: the lowest and the highest reward that could be paid.
        folds: of the reward models.
        fit_rows: reward models are fitted by folds on this many rows at the start of the log, and
            the fit to all of those serves the later rows; all rows in memory, 200,000 of a stream.
        chunk: rows at a time.

    Returns:
        A table with a row for each policy and estimator: value, gain, intervals and overlap.

    Raises:
        InputError: on unknown names, probabilities that do not fit the log, or logs that lack a
            column an estimator needs.
    """
    job = _Job(
        policy, estimators, reference, reward_model, level, interval, resamples, reward_range,
        folds, fit_rows, chunk, seed,
    )  # fmt: skip
    return job.run(logs)


@dataclass
class _Job:
    policy: Any
    estimators: Any
    reference: Any
    reward_model: Nuisance | None
    level: float
    interval: str
    resamples: int
    reward_range: tuple[float, float] | None
    folds: int
    fit_rows: int | None
    chunk: int
    seed: int
    fitted: dict[tuple[str, str, str], Predictor] = field(default_factory=dict)
    head: dict[tuple[str, str, str], Tensor] = field(default_factory=dict)
    head_rows: int = 0

    def __post_init__(self) -> None:
        if self.interval not in _METHODS:
            raise InputError(
                f"there is no interval {self.interval!r}{nearest(self.interval, _METHODS)}; "
                f"there are {', '.join(_METHODS)}"
            )
        if self.interval in ("bernstein", "guarded") and self.reward_range is None:
            raise InputError(f"interval={self.interval!r} needs reward_range=(lowest, highest)")
        if not 0 < self.level < 1:
            raise InputError(f"level lies between 0 and 1, not {self.level}; try 0.05")
        named = isinstance(self.policy, Mapping)
        self.policies: dict[str, Any] = dict(self.policy) if named else {"policy": self.policy}
        given = self.estimators
        self.forms: dict[str, Estimator] = (
            dict(given) if isinstance(given, Mapping) else {key: _built(key) for key in given}
        )

    # -------------------------------------------------------------------------------------- rows

    def run(self, logs: Any) -> Evaluation:
        whole = any(_whole(form) for form in self.forms.values())
        if whole and not isinstance(logs, Decisions):
            names = [name for name, form in self.forms.items() if _whole(form)]
            raise InputError(f"{names[0]} needs the log in memory; read it whole, or leave it out")
        if whole:
            self.chunk = max(self.chunk, len(logs))
        panel = Panel(
            tuple(self.policies), self.forms,
            reward_range=self.reward_range if self.interval in ("bernstein", "guarded") else None,
        )  # fmt: skip
        rewards = _Rewards()
        for batch, queries in self._queries(logs):
            panel.add(queries, batch.group)
            rewards.add(batch.reward)
        if not rewards.count:
            raise InputError("the log has no rows")
        if panel.units < 2:
            raise InputError(
                "the log is a single independent unit (one row, or rows of one group), which says "
                "nothing of how far a value may be off; give more"
            )
        if self.interval == "guarded" and not panel.clustered:
            if iter(logs) is logs:
                raise InputError("interval='guarded' reads the log twice; an iterator cannot")
            for _, queries in self._queries(logs):
                panel.recount(queries)
        return self._read(panel, rewards)

    def _queries(self, logs: Any) -> Iterator[tuple[Decisions, dict[tuple[str, str], Query]]]:
        """Batches with the query of every (policy, estimator): nuisances are fitted on the head."""
        start = 0
        for batch, first in self._batches(logs):
            reference = self._reference(batch, start)
            targets = {
                name: target_probabilities(policy, batch, reference, start, name)
                for name, policy in self.policies.items()
            }
            if first:
                self._needed(batch)
                self._fit(batch, targets)
            for low in range(0, len(batch), self.chunk):
                rows = slice(low, min(low + self.chunk, len(batch)))
                part = batch[rows] if rows.stop - rows.start < len(batch) else batch
                yield part, self._asked(part, {k: t[rows] for k, t in targets.items()},
                                        None if reference is None else reference[rows],
                                        start + low)  # fmt: skip
            start += len(batch)

    def _needed(self, batch: Decisions) -> None:
        for name, form in self.forms.items():
            for column in form.needs:
                here = batch.extras is not None and column in batch.extras.keys()  # noqa: SIM118
                if not here and getattr(batch, column, None) is None:
                    raise InputError(f"{name} needs the column {column!r}, which the log lacks")

    def _batches(self, logs: Any) -> Iterator[tuple[Decisions, bool]]:
        """Batches; the first is the head that nuisances are fitted on."""
        if isinstance(logs, Decisions):
            rows = len(logs) if self.fit_rows is None else min(self.fit_rows, len(logs))
            yield logs[:rows], True
            for low in range(rows, len(logs), self.chunk):
                yield logs[low : low + self.chunk], False
            return
        stream = iter(logs.batches() if hasattr(logs, "batches") else logs)
        wanted = 200_000 if self.fit_rows is None else self.fit_rows
        if not self._nuisances():
            wanted = 1
        held: list[Decisions] = []
        rest: list[Decisions] = []
        while sum(map(len, held)) < wanted:
            batch = next(stream, None)
            if batch is None:
                break
            room = wanted - sum(map(len, held))
            if self._nuisances() and len(batch) > room:
                held.append(batch[:room])
                rest.append(batch[room:])
            else:
                held.append(batch)
        if held:
            joined: Any = torch.cat(held) if len(held) > 1 else held[0]  # type: ignore[arg-type]
            yield joined.described(held[0].about), True
        held.clear()
        for batch in chain(rest, stream):
            yield batch, False

    def _reference(self, batch: Decisions, start: int) -> Float[Tensor, "N A"] | None:
        if self.reference is None:
            return None if batch.propensities is None else batch.propensities.to(torch.float64)
        return target_probabilities(self.reference, batch, batch.propensities, start, "reference")

    # -------------------------------------------------------------------------------- nuisances

    def _nuisances(self) -> dict[tuple[str, str], Nuisance]:
        """By (estimator, column)."""
        found: dict[tuple[str, str], Nuisance] = {}
        for name, form in self.forms.items():
            for column, nuisance in form.nuisances.items():
                found[name, column] = nuisance or self.reward_model or Ridge()
            if "q" in needs_of(form.score) and "q" not in form.nuisances:
                found[name, "q"] = self.reward_model or Ridge()
        return found

    def _key(self, policy: str, column: str, nuisance: Any) -> tuple[str, str, str]:
        return (policy if getattr(nuisance, "per_target", False) else "", column, repr(nuisance))

    def _fit(self, batch: Decisions, targets: Mapping[str, Tensor]) -> None:
        if self.head:
            return  # the second pass of an interval that needs two
        self.head_rows = len(batch)
        for (_, column), nuisance in self._nuisances().items():
            for policy, target in targets.items():
                key = self._key(policy, column, nuisance)
                if key in self.head:
                    continue
                query = _query(batch, target, None)
                fit = cross_fitted(
                    nuisance, query, folds=self.folds, unit=batch.group, seed=self.seed
                )
                self.head[key], self.fitted[key] = fit.column, fit.predictor

    def _asked(
        self, batch: Decisions, targets: Mapping[str, Tensor], reference: Tensor | None, start: int
    ) -> dict[tuple[str, str], Query]:
        nuisances, columns = self._nuisances(), {}
        for policy, target in targets.items():
            for (_, column), nuisance in nuisances.items():
                key = self._key(policy, column, nuisance)
                if key in columns:
                    continue
                if start < self.head_rows:
                    columns[key] = self.head[key][start : start + len(batch)]
                else:
                    columns[key] = self.fitted[key](_query(batch, target, reference))
        out = {}
        shared: dict[tuple[Any, ...], Query] = {}
        for policy, target in targets.items():
            for name in self.forms:
                mine = {c: self._key(policy, c, n) for (e, c), n in nuisances.items() if e == name}
                same = (policy, *sorted(mine.items()))
                if same not in shared:
                    shared[same] = _query(
                        batch, target, reference, {c: columns[key] for c, key in mine.items()}
                    )
                out[policy, name] = shared[same]
        return out

    # ---------------------------------------------------------------------------------- results

    def _read(self, panel: Panel, rewards: _Rewards) -> Evaluation:
        picked = {key: panel.chosen(*key) for key in panel.cells}
        cells = [cell for cell, _ in picked.values()]
        drawn = panel.draws(cells, self.resamples, self.seed)
        drawn = dict(zip(picked, drawn, strict=True))
        joint = self._joint(picked, drawn) if len(self.policies) > 1 else {}
        rows = []
        for (policy, name), (cell, read) in picked.items():
            value, gain = self._intervals(panel, cell, read, drawn[policy, name])
            form, weights = self.forms[name], panel.weights(policy)
            rows.append(
                Result(
                    policy=policy, estimator=name, value=read.value, low=value.low, high=value.high,
                    error=read.error, gain=read.gain, gain_low=gain.low, gain_high=gain.high,
                    gain_error=read.gain_error, reference=read.reference, ess=weights["ess"],
                    support=1.0 - weights["unsupported"], mean_weight=weights["mean_weight"],
                    max_weight=weights["max_weight"], biased=form.biased, interval=value.method,
                    score=repr(cell.score), assumptions=form.assumptions,
                    joint=joint.get((policy, name)),
                )
            )  # fmt: skip
        return Evaluation(tuple(rows), rewards.count, rewards.mean, rewards.error, self.level)

    def _intervals(
        self, panel: Panel, cell: Cell, read: Readout, drawn: Float[Tensor, "R 3"]
    ) -> tuple[Interval, Interval]:
        sums = panel.moments(cell)
        pairs = ((read.value, read.error, 0), (read.gain, read.gain_error, 2))
        if self.interval == "normal":
            z = float(ndtri(1 - self.level / 2))
            found = [
                Interval(v, v - z * e, v + z * e, self.level, "normal", e) for v, e, _ in pairs
            ]
        elif self.interval == "bernstein" and _bounded(cell) and not panel.clustered:
            low, high, gain_low, gain_high = cell.limits
            widths = (high - low, gain_high - gain_low)
            found = [
                bernstein_from(v, e * e * sums.rows, sums.rows, w, self.level)
                for (v, e, _), w in zip(pairs, widths, strict=True)
            ]
        elif self.interval == "guarded" and cell.histograms is not None:
            both = [h.bounds(self.level / 2) for h in cell.histograms]
            found = [
                Interval(v, b.low, b.high, self.level, "guarded", e)
                for (v, e, _), b in zip(pairs, both, strict=True)
            ]
        else:
            found = [percentile(v, drawn[:, place], self.level, e) for v, e, place in pairs]
        return found[0], found[1]

    def _joint(self, picked: Mapping[Any, Any], drawn: Mapping[Any, Tensor]) -> dict[Any, Interval]:
        """Intervals for the gains of all policies at once, per estimator."""
        out = {}
        for name in self.forms:
            keys = [(policy, name) for policy in self.policies]
            reads = [picked[key][1] for key in keys]
            found = max_t(
                torch.tensor([r.gain for r in reads], dtype=torch.float64),
                torch.stack([drawn[key][:, 2] for key in keys], 1),
                torch.tensor([r.gain_error for r in reads], dtype=torch.float64),
                self.level,
            )
            out.update(zip(keys, found, strict=True))
        return out


@dataclass
class _Rewards:
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, reward: Tensor) -> None:
        r = reward.to(torch.float64)
        self.count += len(r)
        self.total += float(r.sum())
        self.squares += float(r @ r)

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def error(self) -> float:
        return math.sqrt(max(self.squares / self.count - self.mean**2, 0.0) / self.count)


def _built(key: str) -> Estimator:
    form = build(key)
    if not isinstance(form, Estimator):
        raise InputError(f"{key} is a {type(form).__name__}, not an estimator; see: surpass list")
    return form


def _bounded(cell: Cell) -> bool:
    return cell.lowered.plain and math.isfinite(cell.limits[0])


def _whole(form: Estimator) -> bool:
    return WHOLE in needs_of(form.score)


def _query(
    batch: Decisions, target: Tensor, reference: Tensor | None, columns: Mapping[str, Tensor] = {}
) -> Query:
    named = {"context": batch.context}
    for column in ("position", "cost", "time", "instrument", "group"):
        if getattr(batch, column) is not None:
            named[column] = getattr(batch, column)
    extras = dict(batch.extras.items()) if batch.extras is not None else {}
    extras |= {k: v for k, v in named.items() if k != "context"}
    if batch.about.action_features is not None:  # of the log as a whole: not a column to be cut
        extras["action_features"] = batch.about.action_features.numpy()
    extras |= {k: v for k, v in columns.items() if k != "q"}
    return Query(
        action=batch.action.to(torch.int64),
        reward=batch.reward.to(torch.float64),
        propensity=batch.propensity.to(torch.float64),
        target=target,
        q=columns.get("q"),
        reference=reference,
        propensities=batch.propensities,
        context=batch.context,
        available=batch.available,
        extras=extras,
    )
