"""Estimators run over queries: one pass, constant memory, every estimator and policy together.

A `Panel` is given batches of queries, one per policy, and keeps only sums of terms (`moments`). It
reads out values, gains over the reference on the same rows, standard errors by the delta method,
and joint bootstrap draws. What the rows are (decisions, episodes) is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.evaluation.guarded import ScoreHistogram
from surpass.evaluation.moments import BLOCKS, Moments
from surpass.forms import Estimator
from surpass.objectives.scores import WHOLE, Lowered, Score, gradient_of, lower, of_reference
from surpass.objectives.selection import slope
from surpass.objectives.views import Query
from surpass.parts import needs_of

__all__ = ["Cell", "Panel", "Readout", "candidates", "point"]


def candidates(score: Score) -> tuple[Score, ...]:
    """The scores among which data chooses, or the one there is."""
    return tuple(score.hyper["scores"]) if score.name == "tuned" else (score,)


def point(score: Score, query: Query, chunk: int = 8192) -> float:
    """The value alone, without intervals: rows go through in chunks that fit the processor's cache.

    A score that needs the whole log is computed whole.
    """
    if WHOLE in needs_of(score) or score.name == "tuned":
        return float(score(query).mean())
    lowered, rows = lower(score), len(query.reward)
    total: list[Tensor] = []
    for start in range(0, rows, chunk):
        part = query.rows(slice(start, start + chunk)) if rows > chunk else query
        sums = [term(part).sum(0) for term in lowered.terms]
        total = sums if not total else [a + b for a, b in zip(total, sums, strict=True)]
    return float(lowered.of(*[t / rows for t in total]))


@dataclass
class Cell:
    """One score of one policy: which columns it owns, and how their means become value and
    reference value."""

    policy: str
    name: str
    score: Score
    lowered: Lowered
    group: int = -1
    widths: tuple[int, ...] = ()  # of the terms; -1 for a term that is one number a row
    reference_reward: bool = False
    sums: Moments | None = None
    limits: list[float] = field(default_factory=lambda: [inf, -inf, inf, -inf])
    histograms: tuple[ScoreHistogram, ScoreHistogram] | None = None

    def both(self, means: Float[Tensor, "... k"]) -> tuple[Tensor, Tensor]:
        """Target value and reference value from means of the cell's columns."""
        parts = means.split([abs(w) for w in self.widths], -1)
        shaped = [p[..., 0] if w < 0 else p for p, w in zip(parts, self.widths, strict=True)]
        count = len(self.lowered.terms)
        target = self.lowered.of(*shaped[:count])
        return target, shaped[count] if self.reference_reward else self.lowered.of(*shaped[count:])


@dataclass(frozen=True)
class Readout:
    """What a cell says: value, reference value and gain, each with its standard error."""

    value: float
    error: float
    reference: float
    reference_error: float
    gain: float
    gain_error: float


class Panel:
    """All policies under all estimators.

    Args:
        policies: names.
        estimators: by name. A `tuned` score counts as several until the end.
        blocks: buckets of the bootstrap.
        reward_range: lowest and highest reward, when the ranges of scores are wanted too.
    """

    def __init__(
        self,
        policies: tuple[str, ...],
        estimators: Mapping[str, Estimator],
        *,
        blocks: int = BLOCKS,
        reward_range: tuple[float, float] | None = None,
    ) -> None:
        self.policies, self.estimators = policies, dict(estimators)
        self.blocks, self.reward_range = blocks, reward_range
        self.cells: dict[tuple[str, str], list[Cell]] = {
            (policy, name): [
                Cell(policy, name, score, _lowered(score)) for score in candidates(estimator.score)
            ]
            for policy in policies
            for name, estimator in self.estimators.items()
        }
        self.sums: Moments | None = None
        self.overlap = dict.fromkeys(policies, -1)

    def add(
        self, queries: Mapping[tuple[str, str], Query], unit: Int[Tensor, "n"] | None = None
    ) -> None:
        """Count a batch: the query of every (policy, estimator), all of the same rows."""
        columns: list[Tensor] = []
        seen: dict[Any, list[Tensor]] = {}
        for key, cells in self.cells.items():
            query = queries[key]
            for cell in cells:
                if WHOLE in needs_of(cell.score):
                    self._whole(cell, query)
                    continue
                columns.append(_columns(cell, query, seen))
                if self.reward_range is not None and cell.lowered.plain:
                    _widen(cell.limits, cell.score, query, self.reward_range)
        for policy in self.policies:
            columns.append(_overlap(next(q for (p, _), q in queries.items() if p == policy)))
        if self.sums is None:
            self._open([c.shape[1] for c in columns])
        assert self.sums is not None
        self.sums.add(torch.cat(columns, 1), unit)

    def _open(self, widths: list[int]) -> None:
        rows = [c for cells in self.cells.values() for c in cells if c.sums is None]
        for place, cell in enumerate(rows):
            cell.group = place
        for place, policy in enumerate(self.policies):
            self.overlap[policy] = len(rows) + place
        self.sums = Moments(widths, self.blocks)

    def _whole(self, cell: Cell, query: Query) -> None:
        """A score that needs the whole log: it comes in one batch, and brings its own units."""
        if cell.sums is not None:
            _ = lower(cell.score)  # raises: this estimator cannot be streamed
        target = cell.score(query)
        against = query.reward if query.reference is None else cell.score(of_reference(query))
        cell.reference_reward, cell.widths, cell.group = query.reference is None, (-1, -1), 0
        cell.sums = Moments([2], self.blocks)
        cell.sums.add(torch.stack((target, against), 1))

    def recount(self, queries: Mapping[tuple[str, str], Query]) -> None:
        """A second pass, for intervals that need the distribution of scores: histograms between the
        limits that the first pass found, of value and of gain."""
        for key, cells in self.cells.items():
            for cell in cells:
                if not cell.lowered.plain or cell.sums is not None:
                    continue
                if cell.histograms is None:
                    low, high, gain_low, gain_high = cell.limits
                    cell.histograms = ScoreHistogram(low, high), ScoreHistogram(gain_low, gain_high)
                value, gain = _value_and_gain(cell.score, queries[key])
                cell.histograms[0].add(value.numpy())
                cell.histograms[1].add(gain.numpy())

    # ------------------------------------------------------------------------------------------

    @property
    def clustered(self) -> bool:
        """Whether rows came in units, which bounds on single rows know nothing of."""
        return self.sums is not None and self.sums.units is not None

    @property
    def units(self) -> int:
        """How many independent units were counted, as far as there are buckets for them."""
        if self.sums is None:
            return 0
        return self.sums.rows if self.sums.units is None else len(self.sums.units)

    def moments(self, cell: Cell) -> Moments:
        """Where the cell's columns are."""
        sums = cell.sums if cell.sums is not None else self.sums
        assert sums is not None
        return sums

    def read(self, cell: Cell) -> Readout:
        """Value, reference value and gain with standard errors by the delta method.

        Formula: se^2 = g' C g / n, C the covariance of the terms and g the gradient of the value in
        their means.
        """
        sums = self.moments(cell)
        mean = sums.of(cell.group, sums.mean)

        def three(m: Tensor) -> Tensor:
            target, against = cell.both(m)
            return torch.stack((target, against, target - against))

        found = three(mean)
        slopes = torch.stack([gradient_of(lambda m, k=k: three(m)[k], mean) for k in range(3)])
        spread = slopes @ sums.covariance(cell.group) @ slopes.T / sums.rows
        errors = spread.diagonal().clamp_min(0).sqrt()
        (v, r, g), (ve, re, ge) = found.tolist(), errors.tolist()
        return Readout(v, ve, r, re, g, ge)

    def chosen(self, policy: str, name: str) -> tuple[Cell, Readout]:
        """The cell that speaks for an estimator: SLOPE's choice where there are several."""
        cells = self.cells[policy, name]
        found = [self.read(cell) for cell in cells]
        if len(cells) == 1:
            return cells[0], found[0]
        values = torch.tensor([f.value for f in found], dtype=torch.float64)
        rule = self.estimators[name].score.hyper["rule"]
        place = slope(values, self._together(cells), rule)
        return cells[place], found[place]

    def _together(self, cells: list[Cell]) -> Float[Tensor, "J J"]:
        """The covariance of several cells' values, from the sums of the buckets."""
        columns = []
        for cell in cells:
            sums = self.moments(cell)
            mean = sums.of(cell.group, sums.mean)
            slopes = gradient_of(lambda m, c=cell: c.both(m)[0], mean)
            columns.append(sums.of(cell.group, sums.centered()) @ slopes)
        influence = torch.stack(columns, 1)
        return influence.T @ influence / float(self.moments(cells[0]).rows) ** 2

    def draws(self, cells: list[Cell], resamples: int, seed: int) -> Float[Tensor, "C R 3"]:
        """Bootstrap values, reference values and gains of some cells, same multipliers for all."""
        out = torch.empty(len(cells), resamples, 3, dtype=torch.float64)
        by_sums: dict[int, list[int]] = {}
        for place, cell in enumerate(cells):
            by_sums.setdefault(id(self.moments(cell)), []).append(place)
        for places in by_sums.values():
            sums, start = self.moments(cells[places[0]]), 0
            for means in sums.resampled(resamples, seed):
                for place in places:
                    cell = cells[place]
                    target, against = cell.both(sums.of(cell.group, means))
                    rows = torch.stack((target, against, target - against), -1)
                    out[place, start : start + len(means)] = rows
                start += len(means)
        return out

    def weights(self, policy: str) -> dict[str, float]:
        """Overlap of a policy: `ess`, `mean_weight`, `max_weight`, `unsupported` mass, `rows`."""
        sums = self.sums
        assert sums is not None
        group = self.overlap[policy]
        mean = sums.of(group, sums.mean)
        shifted = sums.of(group, sums.total)[0] / sums.rows
        square = float(sums.second[group][0, 0] / sums.rows - shifted.square() + mean[0].square())
        return {
            "ess": sums.rows * float(mean[0]) ** 2 / square if square > 0 else 0.0,
            "mean_weight": float(mean[0]),
            "max_weight": float(sums.of(group, sums.maximum)[0]),
            "unsupported": float(mean[1]),
            "rows": float(sums.rows),
        }


def _lowered(score: Score) -> Lowered:
    if WHOLE in needs_of(score):
        return Lowered((score,), lambda mean: mean, True)
    return lower(score)


def _columns(cell: Cell, query: Query, seen: dict[Any, list[Tensor]]) -> Float[Tensor, "n k"]:
    """The cell's terms for the target, then for the reference (the logged reward where only the
    logged propensity is known)."""
    target = [term(query) for term in cell.lowered.terms]
    cell.reference_reward = query.reference is None
    if cell.reference_reward:
        against = [query.reward]
    else:
        key = (cell.score, id(query.q), id(query.extras), id(query.reference))
        if key not in seen:
            other = of_reference(query)
            seen[key] = [term(other) for term in cell.lowered.terms]
        against = seen[key]
    both = target + against
    if not cell.widths:
        cell.widths = tuple(-1 if t.dim() == 1 else t.shape[1] for t in both)
    return torch.cat([(t[:, None] if t.dim() == 1 else t).to(torch.float64) for t in both], 1)


def _value_and_gain(score: Score, query: Query) -> tuple[Tensor, Tensor]:
    value = score(query)
    against = query.reward if query.reference is None else score(of_reference(query))
    return value, value - against


def _widen(limits: list[float], score: Score, query: Query, span: tuple[float, float]) -> None:
    """Widen [low, high] of value and gain to what the scores of these rows could be: they are
    affine in the reward, so both ends of its range are tried."""
    for reward in span:
        asked = replace(query, reward=torch.full_like(query.reward, reward))
        for place, rows in enumerate(_value_and_gain(score, asked)):
            limits[2 * place] = min(limits[2 * place], float(rows.min()))
            limits[2 * place + 1] = max(limits[2 * place + 1], float(rows.max()))


def _overlap(query: Query) -> Float[Tensor, "n 2"]:
    mass = query.ratio.new_zeros(len(query.ratio))
    if query.propensities is not None:
        mass = torch.where(query.propensities > 0, 0.0, query.target).sum(-1)
    return torch.stack((query.ratio, mass), 1).to(torch.float64)
