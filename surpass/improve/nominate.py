"""Nomination: which candidate of which learner is most likely to be proven better, by
cross-validation inside the learning rows.

A learner has a `name` and `fit(rows, fitted, seed) -> candidates`, with the same keys whatever the
rows; it is all that a method needs to take part. One that can cross-validate faster than by
refitting says so with `validate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.critics.deviations import (
    PENALTIES,
    DeviationModel,
    Standardizer,
    deviation_scale,
    grams,
    solve_deviations,
)
from surpass.improve.scoring import Rows, Scores, joined, score
from surpass.improve.stages import folds_of
from surpass.methods.decisions.candidate import Candidate, Label, Learner
from surpass.policies.tilted import CAP, Capped, Tilted, fit_multinomial, tilted

__all__ = [
    "STRENGTHS",
    "Candidate",
    "ClosedFormTilts",
    "Learner",
    "Nomination",
    "Tried",
    "Validation",
    "nominate",
]

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 12.0, 1000.0)
_SCALE_ROWS = 4096  # enough rows to know the spread of d to about a percent
_CHUNK = 50_000  # numbers per temporary, so that they stay in the cache
_MOST = 2_000_000  # numbers per temporary, so that they stay small beside the log


@dataclass(frozen=True)
class Validation:
    """Out-of-fold paired scores [C, n] of C candidates, with the limits [C] that they could
    reach."""

    labels: tuple[Label, ...]
    phi: Float[Tensor, "C n"]
    lower: Float[Tensor, "C"]


@dataclass(frozen=True)
class Tried:
    """A candidate's cross-validation: mean and sd of the scores per unit, the lower limit per row,
    and the statistic (m g - |L|) / (sd sqrt(m)) by which candidates are nominated."""

    label: Label
    gain: float
    sd: float
    lower: float
    statistic: float


@dataclass(frozen=True)
class Nomination:
    """What the learning rows of a stage gave.

    Attributes:
        table: every candidate's cross-validation, best first.
        candidates: by key, fitted on all learning rows.
        fitted: the model of rho that the policies embed, where rho is unknown.
        critic: the default reward model.
    """

    table: tuple[Tried, ...]
    candidates: dict[str, Candidate]
    fitted: nn.Module | None
    critic: nn.Module
    best: Tried | None = None
    by_key: dict[str, Tried] = field(default_factory=dict)

    def sharper(self, key: str) -> str:
        """The key of the next sharper candidate of the same family, or the same key when there is
        none."""
        here = self.by_key[key].label
        more = [
            t.label
            for t in self.table
            if t.label.family == here.family and t.label.sharpness > here.sharpness
        ]
        return min(more, key=lambda label: label.sharpness).key if here.family and more else key


@dataclass(frozen=True)
class ClosedFormTilts:
    """The closed-form learner: tilts of the reference by advantage over noise, for every penalty
    and strength."""

    penalties: tuple[tuple[float, float], ...] = PENALTIES
    strengths: tuple[float, ...] = STRENGTHS
    cap: float = CAP
    name: str = "tilt"

    def labels(self) -> tuple[Label, ...]:
        """One for each penalty and strength, strengths running fastest."""
        out = []
        for intercept, slope in self.penalties:
            family = f"{self.name}({intercept:g},{slope:g})"
            for c in self.strengths:
                params = {"intercept_penalty": intercept, "slope_penalty": slope, "strength": c}
                out.append(Label(f"{family[:-1]},c={c:g})", self.name, params, family, c))
        return tuple(out)

    def fit(self, rows: Rows, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        """All tilts, learned from `rows`."""
        standardizer = Standardizer.of(rows.context)
        x = standardizer.features(rows.context)
        shared, theta = solve_deviations(
            grams(x, rows.reward, rows.action, rows.n_actions), self.penalties
        )
        scale = self._scale(x, theta, rows, fitted)
        labels = iter(self.labels())
        out = []
        for place in range(len(self.penalties)):
            critic = DeviationModel.of(standardizer, shared, theta[place])
            for c in self.strengths:
                policy = Tilted(rows.context.shape[1], rows.n_actions, c, self.cap, fitted)
                policy.mean, policy.spread = standardizer.mean, standardizer.spread
                policy.theta, policy.scale = theta[place], scale[place]
                out.append(Candidate(next(labels), policy, critic))
        return out

    def _scale(
        self, x: Tensor, theta: Float[Tensor, "P A D"], rows: Rows, fitted: nn.Module | None
    ) -> Float[Tensor, "P"]:
        step = max(1, -(-len(rows) // _SCALE_ROWS))
        return deviation_scale(
            x[::step] @ theta.transpose(1, 2), _rho(rows.take(slice(None, None, step)), fitted)
        )

    def validate(
        self, rows: Rows, fold: Int[Tensor, "n"], folds: int, fitted: nn.Module | None
    ) -> Validation:
        """Cross-validated scores of all tilts: Gram matrices once, small solves per fold."""
        order = torch.argsort(fold, stable=True)
        rows = rows.take(order)
        x = Standardizer.of(rows.context).features(rows.context)
        sums = grams(x, rows.reward, rows.action, rows.n_actions, fold[order], folds)
        ends = torch.bincount(fold, minlength=folds).cumsum(0).tolist()
        size = len(self.penalties) * len(self.strengths)
        phi = torch.empty(size, len(rows), dtype=torch.float64)
        lower = torch.full((size,), torch.inf, dtype=torch.float64)
        for k, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
            shared, theta = solve_deviations(sums.without(k), self.penalties)
            rest = torch.cat([torch.arange(start), torch.arange(stop, len(rows))])
            scale = self._scale(x[rest], theta, rows.take(rest), fitted)
            held = slice(start, stop)
            found = self._score(x[held], shared, theta, scale, rows.take(held), fitted)
            phi[:, held] = found[0]
            lower = torch.minimum(lower, found[1])
        back = torch.empty_like(phi)
        back[:, order] = phi
        return Validation(self.labels(), back, lower)

    def scores(self, learn: Rows, held: Rows, fitted: nn.Module | None = None) -> Validation:
        """Paired scores on `held` of all tilts learned from `learn`."""
        standardizer = Standardizer.of(learn.context)
        x = standardizer.features(learn.context)
        sums = grams(x, learn.reward, learn.action, learn.n_actions)
        shared, theta = solve_deviations(sums, self.penalties)
        scale = self._scale(x, theta, learn, fitted)
        features = standardizer.features(held.context)
        return Validation(self.labels(), *self._score(features, shared, theta, scale, held, fitted))

    def _score(
        self,
        x: Tensor,
        shared: Tensor,
        theta: Tensor,
        scale: Tensor,
        rows: Rows,
        fitted: nn.Module | None,
    ) -> tuple[Float[Tensor, "C n"], Float[Tensor, "C"]]:
        """phi and its lower limit of every penalty and strength, in chunks of rows."""
        strengths = torch.tensor(self.strengths, dtype=torch.float64).view(-1, 1, 1)
        shape = (len(self.penalties), len(self.strengths))
        phi = torch.empty(*shape, len(rows), dtype=torch.float64)
        lower = torch.full(shape, torch.inf, dtype=torch.float64)
        step = max(64, _CHUNK // (shape[0] * shape[1] * rows.n_actions))
        for at in range(0, len(rows), step):
            some = slice(at, at + step)
            held, xs = rows.take(some), x[some]
            rho = _rho(held, fitted)
            deviation = xs @ theta.transpose(1, 2)
            advantage = deviation - (rho * deviation).sum(-1, keepdim=True)
            advantage /= scale[:, None, None]
            pi = tilted(rho, advantage[:, None], strengths, self.cap)
            q = deviation + (xs @ shared)[:, None]
            same = held.reference is not None and held.reference is held.behavior
            result = score(held, pi, q[:, None], rho, lower_only=same)
            phi[..., some] = result.phi
            lower = torch.minimum(lower, result.lower)
        return phi.flatten(0, 1), lower.flatten()


def _rho(rows: Rows, fitted: nn.Module | None) -> Tensor:
    if rows.reference is not None:
        return rows.reference
    assert fitted is not None
    return fitted(rows.context, rows.offered)


def near(candidate: Candidate, fitted: nn.Module | None) -> Candidate:
    """The candidate with its policy capped relative to the reference, if it is not by
    construction."""
    if isinstance(candidate.policy, Tilted | Capped):
        return candidate
    return Candidate(candidate.label, Capped(candidate.policy, CAP, fitted), candidate.critic)


def _validate(
    learner: Learner, rows: Rows, fold: Tensor, folds: int, fitted: nn.Module | None, seed: int
) -> Validation:
    """Cross-validation by refitting, for learners without a fast path."""
    labels: tuple[Label, ...] = ()
    phi, lower = torch.empty(0), torch.empty(0)
    for k in range(folds):
        train, held = rows.take(fold != k), rows.take(fold == k)
        default = DeviationModel.fit(train.context, train.action, train.reward, train.n_actions)
        candidates = learner.fit(train, fitted, seed)
        if k == 0:
            labels = tuple(c.label for c in candidates)
            phi = torch.empty(len(labels), len(rows), dtype=torch.float64)
            lower = torch.full((len(labels),), torch.inf, dtype=torch.float64)
        found = {c.label.key: c for c in candidates}
        for place, label in enumerate(labels):
            candidate = near(found[label.key], fitted)
            result = score_candidate(candidate, held, fitted, default)
            phi[place, fold == k] = result.phi
            lower[place] = torch.minimum(lower[place], result.lower)
    return Validation(labels, phi, lower)


def score_candidate(
    candidate: Candidate, rows: Rows, fitted: nn.Module | None, default: nn.Module
) -> Scores:
    """Paired scores of a candidate on rows that it was not learned from, in chunks of rows."""
    critic = candidate.critic or default
    step = max(1024, _MOST // rows.n_actions)
    parts = []
    for at in range(0, len(rows), step):
        some = rows.take(slice(at, at + step))
        pi = candidate.policy(some.context, some.offered).to(torch.float64)
        q = critic(some.context).to(torch.float64)
        parts.append(score(some, pi, q, None if some.reference is not None else _rho(some, fitted)))
    return joined(parts)


@torch.no_grad()
def nominate(
    rows: Rows,
    unit: Int[Tensor, "n"],
    learners: Sequence[Learner],
    *,
    scored_units: int,
    largest_unit: int = 1,
    margin: float = 0.0,
    seed: int = 0,
    folds: int = 3,
) -> Nomination:
    """Fit every learner on the learning rows, and pick the candidate that is most likely to be
    proven better.

    Args:
        rows: the learning rows.
        unit: the unit of each; folds do not split units.
        learners: what gives candidates.
        scored_units: m, how many units will be scored in all.
        largest_unit: the most rows of one unit.
        margin: the gain that has to be exceeded.
        seed: of the folds and the learners.
        folds: of the cross-validation.
    """
    fitted = (
        fit_multinomial(rows.context, rows.action, rows.n_actions)
        if rows.reference is None
        else None
    )
    fold = folds_of(unit, folds, seed)
    table: list[Tried] = []
    candidates: dict[str, Candidate] = {}
    for learner in learners:
        fast = getattr(learner, "validate", None)
        result = (
            fast(rows, fold, folds, fitted)
            if fast is not None
            else _validate(learner, rows, fold, folds, fitted, seed)
        )
        table += _summaries(result, unit, scored_units, largest_unit, margin)
        for candidate in learner.fit(rows, fitted, seed):
            candidates[candidate.label.key] = near(candidate, fitted)
    table.sort(key=lambda t: -t.statistic)
    best = next((t for t in table if t.sd > 0.0), None)
    critic = DeviationModel.fit(rows.context, rows.action, rows.reward, rows.n_actions)
    return Nomination(
        tuple(table), candidates, fitted, critic, best, {t.label.key: t for t in table}
    )


def _summaries(
    result: Validation, unit: Tensor, scored_units: int, largest_unit: int, margin: float
) -> list[Tried]:
    phi, exposure = result.phi, 1.0
    if largest_unit > 1:
        names, label, sizes = torch.unique(unit, return_inverse=True, return_counts=True)
        phi = phi.new_zeros(phi.shape[0], len(names)).index_add_(1, label, phi)
        exposure = float(sizes.double().mean())
    means = phi.mean(1)
    spreads = phi.std(1)
    out = []
    limits = zip(
        result.labels, means.tolist(), spreads.tolist(), result.lower.tolist(), strict=True
    )
    for label, mean, spread, lower in limits:
        worst = largest_unit * max(margin - lower, 0.0)
        statistic = -math.inf
        if spread > 0.0:
            statistic = (scored_units * (mean - margin * exposure) - worst) / (
                spread * math.sqrt(scored_units)
            )
        out.append(Tried(label, mean, spread, lower, statistic))
    return out
