"""PROMOTE, HOLD or REJECT: nominate and score in stages, pool, test, and walk on to sharper
policies.

The claim that is tested: the policy that is handed over has a larger mean reward than the
    reference, by more than
`margin`, on the population of the evaluated rows. A PROMOTE when that is false has a chance of at
most `level`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.critics.deviations import DeviationModel
from surpass.errors import InputError
from surpass.evaluation.guarded import guarded_low, guarded_p, pooled_guard
from surpass.improve.nominate import (
    Candidate,
    ClosedFormTilts,
    Label,
    Learner,
    Nomination,
    Tried,
    nominate,
    score_candidate,
)
from surpass.improve.results import Verdict
from surpass.improve.scoring import RewardRange, Rows
from surpass.improve.stages import Plan, folds_of, plan_stages
from surpass.improve.wording import decimals, number
from surpass.policies.tilted import Mixture, fit_multinomial

__all__ = ["Decision", "StageScores", "Tested", "decide", "decide_given", "test_stages"]

LEARNERS: tuple[Learner, ...] = (ClosedFormTilts(),)


@dataclass(frozen=True)
class StageScores:
    """One candidate on the scored rows of one stage.

    Attributes:
        stage: its number.
        rows: [n] which rows of the log were scored.
        candidate: what was scored.
        tried: its cross-validation inside the learning rows; None for a policy that the user gave.
        scale: s, the sd per unit that the learning rows predicted; x = (phi - margin) / s.
        phi, phi_high: [n] the paired scores, for the lower and for the upper bound.
        lower, upper: the smallest phi and the largest phi_high that these contexts allow.
        weight: [n] pi / p of the logged action.
        unsupported: [n] candidate mass where the log has none, or None where there is none.
    """

    stage: int
    rows: Int[Tensor, "n"]
    candidate: Candidate
    tried: Tried | None
    scale: float
    phi: Float[Tensor, "n"]
    phi_high: Float[Tensor, "n"]
    lower: float
    upper: float
    weight: Float[Tensor, "n"]
    unsupported: Float[Tensor, "n"] | None = None


@dataclass(frozen=True)
class Tested:
    """A mixture of stage policies with its guarded test; `policy` is exactly what was tested.

    `gain_low` and `gain_high` are one-sided bounds at `level` each: together a 90 % interval at 5
    %.
    """

    key: str
    stages: tuple[StageScores, ...]
    unit: Int[Tensor, "N"]
    largest_unit: int
    margin: float
    level: float
    p: float
    p_reject: float

    @property
    def rows(self) -> Int[Tensor, "n"]:
        """The scored rows, in the order of the stages."""
        return torch.cat([s.rows for s in self.stages])

    @property
    def x(self) -> Float[Tensor, "n"]:
        """(phi - margin) / s of every scored row, in the order of the stages."""
        return torch.cat([(s.phi - self.margin) / s.scale for s in self.stages])

    @property
    def weight(self) -> Float[Tensor, "n"]:
        """pi / p of every scored row."""
        return torch.cat([s.weight for s in self.stages])

    @property
    def unsupported(self) -> float:
        """Mean candidate mass on actions that the log cannot show."""
        parts = [
            s.unsupported if s.unsupported is not None else torch.zeros_like(s.phi)
            for s in self.stages
        ]
        return float(torch.cat(parts).mean())

    @property
    def shares(self) -> tuple[float, ...]:
        """The mixture weights a_j, in proportion to n_j / s_j."""
        raw = [len(s.rows) / s.scale for s in self.stages]
        return tuple(r / sum(raw) for r in raw)

    @cached_property
    def gain(self) -> float:
        """The estimated gain of the mixture over the reference, per row."""
        total, exposure = self._by_unit("phi")
        return float(total.sum() / exposure.sum())

    @cached_property
    def gain_low(self) -> float:
        """The largest margin at which the test still holds at `level`."""
        return self.low_at(self.level)

    @cached_property
    def gain_high(self) -> float:
        """The smallest margin that the gain is proven not to exceed at `level`."""
        return self.high_at(self.level)

    def low_at(self, level: float) -> float:
        """The one-sided lower bound at another level."""
        total, exposure = self._by_unit("phi")
        guard = pooled_guard([(s.lower, s.scale) for s in self.stages], self.largest_unit)
        return guarded_low(total, guard, level, exposure)

    def high_at(self, level: float) -> float:
        """The one-sided upper bound at another level."""
        total, exposure = self._by_unit("phi_high")
        guard = pooled_guard([(-s.upper, s.scale) for s in self.stages], self.largest_unit)
        return -guarded_low(-total, guard, level, exposure)

    @cached_property
    def scores(self) -> Float[np.ndarray, "u"]:
        """One score per unit with the margin taken off, in units of the reward: their mean is the
        mean row's gain - margin where every row is a unit."""
        total, exposure = self._by_unit("phi")
        return (total - self.margin * exposure) * (exposure.size / exposure.sum())

    @property
    def guard(self) -> float:
        """The guard, on the scale of `scores`."""
        _, exposure = self._by_unit("phi")
        limits = [(s.lower, s.scale) for s in self.stages]
        least = pooled_guard(limits, self.largest_unit)(self.margin)
        return least * float(exposure.size / exposure.sum())

    @property
    def predicted(self) -> float:
        """The mixture's gain as cross-validation inside the learning rows predicted it, per
        unit."""
        gains = [s.tried.gain if s.tried is not None else 0.0 for s in self.stages]
        return float(np.dot(self.shares, gains))

    @cached_property
    def policy(self) -> nn.Module:
        """The mixture of the stage policies, with the weights that make its gain the tested
        number."""
        if len(self.stages) == 1:
            return self.stages[0].candidate.policy
        return Mixture([s.candidate.policy for s in self.stages], self.shares)

    def _by_unit(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        return _by_unit(self.stages, which, self.unit if self.largest_unit > 1 else None)


def _by_unit(
    stages: Sequence[StageScores], which: str, unit: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores divided by their stage's scale and summed by unit, and the same of ones."""
    total = torch.cat([getattr(s, which) / s.scale for s in stages])
    exposure = torch.cat([torch.full_like(s.phi, 1.0 / s.scale) for s in stages])
    if unit is not None:
        _, label = torch.unique(unit[torch.cat([s.rows for s in stages])], return_inverse=True)
        units = int(label.max()) + 1
        total = total.new_zeros(units).index_add_(0, label, total)
        exposure = exposure.new_zeros(units).index_add_(0, label, exposure)
    return total.numpy(), exposure.numpy()


def test_stages(
    key: str,
    stages: Sequence[StageScores],
    unit: Int[Tensor, "N"],
    largest_unit: int = 1,
    margin: float = 0.0,
    level: float = 0.05,
) -> Tested:
    """The guarded test of pooled stages, for a gain above the margin and for one that is proven not
    to exceed it."""
    grouping = unit if largest_unit > 1 else None
    total, exposure = _by_unit(stages, "phi", grouping)
    guard = pooled_guard([(s.lower, s.scale) for s in stages], largest_unit)
    p = guarded_p(total - margin * exposure, guard(margin))
    total, exposure = _by_unit(stages, "phi_high", grouping)
    guard = pooled_guard([(-s.upper, s.scale) for s in stages], largest_unit)
    p_reject = guarded_p(margin * exposure - total, guard(-margin))
    return Tested(key, tuple(stages), unit, largest_unit, margin, level, p, p_reject)


test_stages.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test for pytest to collect


@dataclass(frozen=True)
class Decision:
    """The verdict with everything that it rests on.

    Attributes:
        verdict, reason: the word, and one sentence.
        best: what was proven and is handed over under PROMOTE; the nominated test otherwise; None
            when no candidate differs from the reference.
        tested: every test that was made, in order: the nominated one, then sharper tilts, or the
            given candidates.
        proven: which of them were proven.
        nominations: per stage, every candidate with its cross-validation.
        rows, plan, range, level, margin, seed: what went in.
    """

    verdict: Verdict
    reason: str
    best: Tested | None
    tested: tuple[Tested, ...]
    proven: tuple[bool, ...]
    nominations: tuple[Nomination, ...]
    rows: Rows
    plan: Plan
    range: RewardRange
    level: float
    margin: float
    seed: int

    def held(self, reason: str) -> Decision:
        """The same decision with its PROMOTE turned into HOLD; what was HOLD or REJECT stays."""
        return self if self.verdict != "PROMOTE" else replace(self, verdict="HOLD", reason=reason)

    def others(self) -> tuple[Tested, ...]:
        """Every candidate of the nomination, scored like the nominated one: for information, at
        level / J."""
        usable = [n for n in self.nominations if n.best is not None]
        keys = [t.label.key for t in usable[-1].table] if usable else []
        staged = _Staged(
            self.rows, self.plan, self.nominations, self.margin, self.level / max(len(keys), 1)
        )
        out = (staged.test([key] * len(self.nominations)) for key in keys)
        return tuple(t for t in out if t is not None)


class _Staged:
    """Scores candidates of the nominations stage by stage."""

    def __init__(
        self, rows: Rows, plan: Plan, nominations: Sequence[Nomination], margin: float, level: float
    ) -> None:
        self.plan, self.nominations, self.margin, self.level = plan, nominations, margin, level
        self.scored = [plan.score(j) for j in range(len(plan.bounds))]
        self.rows = [rows.take(s) for s in self.scored]
        self.known: dict[tuple[int, str], StageScores] = {}

    def score(self, stage: int, key: str) -> StageScores:
        if (stage, key) not in self.known:
            nomination = self.nominations[stage]
            candidate, tried = nomination.candidates[key], nomination.by_key[key]
            found = score_candidate(
                candidate, self.rows[stage], nomination.fitted, nomination.critic
            )
            self.known[stage, key] = StageScores(
                stage,
                self.scored[stage],
                candidate,
                tried,
                tried.sd,
                found.phi,
                found.phi_high,
                float(found.lower),
                float(found.upper),
                found.weight,
                found.unsupported,
            )
        return self.known[stage, key]

    def test(self, keys: Sequence[str | None]) -> Tested | None:
        """The pooled test of one key per stage; stages without a key, or whose candidate never left
        rho, are left out."""
        stages = [
            self.score(j, key)
            for j, key in enumerate(keys)
            if key is not None and self.nominations[j].by_key[key].sd > 0.0
        ]
        if not stages:
            return None
        keys_used = list(dict.fromkeys(s.candidate.label.key for s in stages))
        name = keys_used[0] if len(keys_used) == 1 else "mixture of " + " and ".join(keys_used)
        return test_stages(
            name, stages, self.plan.unit, self.plan.largest_unit, self.margin, self.level
        )


@torch.no_grad()
def decide(
    rows: Rows,
    range: RewardRange,
    plan: Plan | None = None,
    *,
    learners: Sequence[Learner] = LEARNERS,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    accept_observed: bool = False,
    walk: bool = True,
) -> Decision:
    """Learn, nominate and test in stages.

    Args:
        rows: the log.
        range: of the reward, and how it is known.
        plan: the stages; rows in a permutation of the seed when not given.
        learners: what gives candidates; the closed-form tilts are the first of them.
        level: the allowed chance of a false PROMOTE.
        margin: the gain that has to be exceeded, in units of the reward.
        seed: of the permutation, the folds and the learners.
        accept_observed: let an observed range of rewards carry a PROMOTE, which then names the
            condition.
        walk: after a PROMOTE, test sharper tilts of the same models, in order, until one fails.
    """
    plan = plan_stages(len(rows), seed=seed) if plan is None else plan
    nominations = []
    for stage, _ in enumerate(plan.bounds):
        learn = plan.learn(stage)
        nominations.append(
            nominate(
                rows.take(learn),
                plan.unit[learn],
                learners,
                scored_units=plan.scored_units,
                largest_unit=plan.largest_unit,
                margin=margin,
                seed=seed + stage,
            )
        )
    staged = _Staged(rows, plan, nominations, margin, level)
    keys = [n.best.label.key if n.best is not None else None for n in nominations]
    tested: list[Tested] = []
    while (current := staged.test(keys)) is not None:
        tested.append(current)
        sharper = [k and n.sharper(k) for k, n in zip(keys, nominations, strict=True)]
        if current.p > level or sharper == keys or not walk:
            break
        keys = sharper
    proven = [t.p <= level for t in tested]
    best = (
        _largest([t for t, ok in zip(tested, proven, strict=True) if ok]) or (tested or [None])[0]
    )
    verdict, reason = _verdict(tested[:1], any(proven), best, range, accept_observed)
    return Decision(
        verdict,
        reason,
        best,
        tuple(tested),
        tuple(proven),
        tuple(nominations),
        rows,
        plan,
        range,
        level,
        margin,
        seed,
    )


def _largest(proven: list[Tested]) -> Tested | None:
    """The proven policy with the largest gain predicted from learning rows."""
    return max(proven, key=lambda t: t.predicted) if proven else None


def _verdict(
    judged: Sequence[Tested], proven: bool, best: Tested | None, range: RewardRange, accept: bool
) -> tuple[Verdict, str]:
    if best is None:
        return (
            "HOLD",
            "no candidate differs from the reference: the learning rows show no difference"
            " between actions",
        )
    places = decimals(best.gain_low, best.gain, best.gain_high)
    low, gain, high = (number(v, places) for v in (best.gain_low, best.gain, best.gain_high))
    observed = range.source == "observed"
    rejected = all(t.p_reject <= t.level for t in judged)
    if observed and not accept and (proven or rejected):
        bound = f"the gain is at least {low}" if proven else f"the gain is at most {high}"
        return "HOLD", (
            "state the range of the reward (--reward-range LO HI): if the observed range "
            f"[{range.lo:g}, {range.hi:g}] holds, {bound}"
        )
    if proven:
        condition = f", provided that {range.assumption}" if observed else ""
        more = f"by more than {best.margin:g}" if best.margin else "more than the reference"
        return "PROMOTE", f"it earns {more}: gain {gain}, at least {low}{condition}"
    if rejected:
        return (
            "REJECT",
            f"proven not to exceed the reference by more than {best.margin:g}: gain at most {high}",
        )
    return "HOLD", f"not proven: gain {gain}, between {low} and {high}"


@torch.no_grad()
def decide_given(
    rows: Rows,
    range: RewardRange,
    policies: Mapping[str, nn.Module],
    *,
    group: Int[Tensor, "N"] | None = None,
    ordered: bool = False,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    folds: int = 5,
    accept_observed: bool = False,
) -> Decision:
    """The verdict on policies that were made before the log was seen: every row is scored, the
    reward model cross-fitted.

    Args:
        rows: the log.
        range: of the reward.
        policies: by name; each maps (context, reference) to probabilities. They are not capped.
        group: the unit of each row.
        ordered: the order of `policies` was fixed beforehand: each is tested at the full level
            until one fails. Else Holm's step-down test, A simple sequentially rejective multiple
            test procedure (1979).
        level, margin, seed, accept_observed: as in `decide`.
        folds: of the cross-fitted reward model.

    Raises:
        InputError: when no policy is given.
    """
    if not policies:
        raise InputError("no candidate was given; give at least one policy")
    plan = plan_stages(len(rows), group=group, seed=seed, shares=((0.5, 1.0),))
    plan = replace(plan, bounds=((0, len(rows)),))
    fold = folds_of(plan.unit, folds, seed)
    parts: dict[str, list[StageScores]] = {name: [] for name in policies}
    for k in np.arange(folds).tolist():
        train, held = rows.take(fold != k), rows.take(fold == k)
        critic = DeviationModel.fit(train.context, train.action, train.reward, train.n_actions)
        known = rows.reference is not None
        fitted = None if known else fit_multinomial(train.context, train.action, train.n_actions)
        for name, policy in policies.items():
            candidate = Candidate(Label(name, "given", {}), policy, critic)
            s = score_candidate(candidate, held, fitted, critic)
            parts[name].append(
                StageScores(
                    0,
                    (fold == k).nonzero()[:, 0],
                    candidate,
                    None,
                    1.0,
                    s.phi,
                    s.phi_high,
                    float(s.lower),
                    float(s.upper),
                    s.weight,
                    s.unsupported,
                )
            )
    tested = [
        test_stages(name, [_joined(found)], plan.unit, plan.largest_unit, margin, level)
        for name, found in parts.items()
    ]
    proven = (
        _in_order([t.p for t in tested], level) if ordered else _holm([t.p for t in tested], level)
    )
    winners = [t for t, ok in zip(tested, proven, strict=True) if ok]
    best = max(winners or tested, key=lambda t: t.gain)
    verdict, reason = _verdict(tested, any(proven), best, range, accept_observed)
    return Decision(
        verdict,
        reason,
        best,
        tuple(tested),
        tuple(proven),
        (),
        rows,
        plan,
        range,
        level,
        margin,
        seed,
    )


def _joined(parts: Sequence[StageScores]) -> StageScores:
    """The folds of one given policy as one stage, rows in the order of the log."""
    rows = torch.cat([p.rows for p in parts])
    order = torch.argsort(rows)

    def column(name: str) -> Tensor:
        return torch.cat([getattr(p, name) for p in parts])[order]

    loose = [p.unsupported if p.unsupported is not None else torch.zeros_like(p.phi) for p in parts]
    any_loose = any(p.unsupported is not None for p in parts)
    return replace(
        parts[0],
        rows=rows[order],
        phi=column("phi"),
        phi_high=column("phi_high"),
        weight=column("weight"),
        lower=min(p.lower for p in parts),
        upper=max(p.upper for p in parts),
        unsupported=torch.cat(loose)[order] if any_loose else None,
    )


def _holm(p: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses Holm's step-down test rejects."""
    proven = [False] * len(p)
    for step, place in enumerate(np.argsort(p, kind="stable").tolist()):
        if p[place] > level / (len(p) - step):
            break
        proven[place] = True
    return proven


def _in_order(p: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses a fixed sequence rejects: all before the first that fails."""
    failed = next((place for place, value in enumerate(p) if value > level), len(p))
    return [place < failed for place in np.arange(len(p)).tolist()]
