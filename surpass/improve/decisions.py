"""The main job on decision logs: check, learn and test in stages, verdict, and what would settle a
HOLD."""

from __future__ import annotations

import platform
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from surpass.data.records import Decisions
from surpass.errors import InputError
from surpass.evaluation.guarded import guarded_bounds
from surpass.improve import checks as look
from surpass.improve.agreement import agreement, reasons
from surpass.improve.diagnose import candidate_probabilities, diagnosis, reward_predictions
from surpass.improve.hold import settlement
from surpass.improve.improvement import Design, Improvement
from surpass.improve.nominate import Candidate, Learner, Validation, score_candidate
from surpass.improve.portfolios import of_decisions
from surpass.improve.procedure import LEARNERS, Decision, Tested, decide, decide_given, test_stages
from surpass.improve.references import reference_table
from surpass.improve.results import CandidateResult, Check, Estimate, Settlement
from surpass.improve.scoring import Rows, reward_range
from surpass.improve.stages import plan_stages
from surpass.policies.tilted import fit_multinomial

__all__ = ["check_options", "explain", "improve_decisions", "unit_of"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """A learner that says what it is doing."""

    learner: Learner
    say: Say

    @property
    def name(self) -> str:
        return self.learner.name

    def fit(self, rows: Rows, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        self.say(f"learning {self.name} on {len(rows):,} rows")
        return self.learner.fit(rows, fitted, seed)


@dataclass(frozen=True)
class ToldFast(Told):
    """The same, for a learner that validates without refitting."""

    def validate(
        self, rows: Rows, fold: Tensor, folds: int, fitted: nn.Module | None
    ) -> Validation:
        return self.learner.validate(rows, fold, folds, fitted)  # type: ignore[attr-defined]


def told(learners: Iterable[Learner], say: Say) -> tuple[Learner, ...]:
    return tuple((ToldFast if hasattr(x, "validate") else Told)(x, say) for x in learners)


def versions() -> dict[str, str]:
    """Of the packages that a result rests on."""
    out = {"python": platform.python_version()}
    for name in ("surpass", "torch", "numpy", "scipy", "scikit-learn"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed as a package"
    return out


def improve_decisions(
    log: Decisions,
    reference: Any = None,
    methods: str | Sequence[str] = "auto",
    *,
    candidates: Mapping[str, nn.Module] | None = None,
    ordered: bool = False,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    reward_limits: tuple[float, float] | None = None,
    accept_observed_range: bool = False,
    winsorize: float | None = None,
    propensity: str = "logged",
    truth: Any = None,
    opened: Any = None,
    name: str = "",
    say: Say = lambda _: None,
) -> Improvement:
    """From a decision log to a verdict.

    Args:
        log: the decisions.
        reference: the policy to surpass: a module, probabilities [N, A] or [A]; None: the logging
            policy.
        methods: keys of learners, or "auto".
        candidates: policies made before the log was seen; they are tested instead of learned ones.
        ordered: the order of `candidates` was fixed beforehand.
        level, margin, seed: of the verdict.
        reward_limits: the smallest and largest reward that may occur.
        accept_observed_range: let the observed range stand for it; the reason repeats the
            condition.
        winsorize: test rewards cut at this quantile (of the learning rows) too; both must pass.
        propensity: "logged", or "fitted" (a multinomial model; the claim is then conditional on
            it).
        opened: where the log was read from; a reference that reads raw columns needs it.
        truth: an object with `value(policy)`, where the truth is known.
        name: what the report calls the log.
        say: is told what happens.

    Raises:
        InputError: when the log, the reference or an option cannot be used.
    """
    seconds: dict[str, float] = {}
    started = clock.perf_counter()

    def done(stage: str) -> None:
        nonlocal started
        seconds[stage] = clock.perf_counter() - started
        started = clock.perf_counter()

    check_options(level, margin, log, winsorize)
    say("checking the log")
    limits = reward_range(log.reward.double(), reward_limits)
    log = _with_fitted_propensities(log) if propensity == "fitted" else log
    sticky, group = unit_of(log)
    rows = Rows.of(log, limits.lo, limits.hi, reference_table(reference, log, opened))
    plan = plan_stages(len(rows), group=group, time=log.time, seed=seed)
    done("checks")

    if candidates:
        say(f"scoring {len(candidates)} given policies")
        decision = decide_given(
            rows,
            limits,
            candidates,
            group=group,
            ordered=ordered,
            level=level,
            margin=margin,
            seed=seed,
            accept_observed=accept_observed_range,
        )
    else:
        learners = told(_learners(methods), say)
        decision = decide(
            rows,
            limits,
            plan,
            learners=learners,
            level=level,
            margin=margin,
            seed=seed,
            accept_observed=accept_observed_range,
        )
    done("learning and testing")
    if winsorize is not None and decision.verdict == "PROMOTE":
        decision = _winsorized(decision, winsorize)
    said = _assumptions(decision, log, propensity, reference)
    return explain(
        decision, log, group, sticky, truth=truth, name=name, assumptions=said,
        off_policy=reference is not None, design="given" if candidates else "learned",
        seconds=seconds, say=say,
    )  # fmt: skip


def explain(
    decision: Decision,
    log: Decisions,
    group: Tensor | None,
    sticky: Check,
    *,
    truth: Any = None,
    name: str = "",
    assumptions: tuple[str, ...] = (),
    off_policy: bool = False,
    design: Design = "learned",
    seconds: dict[str, float] | None = None,
    say: Say = lambda _: None,
) -> Improvement:
    """From a decision to everything the report shows; a failed check turns PROMOTE into HOLD.

    Args:
        group: the unit of each row, or None. sticky: the duplicate check that was made with it.
        off_policy: the reference is not the policy that wrote the log.
    """
    seconds = {} if seconds is None else seconds
    started = clock.perf_counter()
    say("looking at what could be wrong")
    found = _checks(log, decision, group, sticky)
    failed = next((c for c in found if not c.passed), None)
    if failed is not None:
        decision = decision.held(failed.reason)
    seconds["checks of the result"] = clock.perf_counter() - started
    say("comparing estimators")
    started = clock.perf_counter()
    results, weighed = _results(decision, log, truth)
    unit = "row" if not decision.plan.grouped else _unit_name(log, sticky)
    described = diagnosis(log, decision, found, unit)
    described |= {"estimators": list(reasons(log)), "portfolio": of_decisions(weighed)}
    seconds["estimators"] = clock.perf_counter() - started
    return Improvement(
        verdict=decision.verdict,
        reason=_sentence(decision.reason),
        log=name or log.about.name or "decision log",
        reference=_reference_value(decision, off_policy),
        best=next((r for r in results if r.tested), None),
        candidates=results,
        checks=found,
        settlement=_settle(decision, log, failed) if decision.verdict == "HOLD" else None,
        diagnosis=described,
        assumptions=assumptions,
        rows=len(log.action),
        level=decision.level,
        margin=decision.margin,
        seed=decision.seed,
        versions=versions(),
        seconds=seconds,
        design=design,
        hand_over=_hand_over(decision, log),
        reference_name="given" if off_policy else "the policy that wrote the log",
    )


# ----------------------------------------------------------------------------------------------
# before


def check_options(
    level: float, margin: float, log: Decisions, winsorize: float | None = None
) -> None:
    """Say what is wrong with the options before anything is learned.

    Raises:
        InputError: when one is out of its range, or the log is too short.
    """
    if not 0 < level < 0.5:
        raise InputError(f"--level is {level:g}; give a chance between 0 and 0.5, such as 0.05")
    if not np.isfinite(margin):
        raise InputError(f"--margin is {margin}; give a number in units of the reward")
    if winsorize is not None and not 0.5 < winsorize < 1:
        raise InputError(
            f"--winsorize is {winsorize:g}; give a quantile between 0.5 and 1, such as 0.99"
        )
    if len(log.action) < 100:
        raise InputError(f"the log has {len(log.action)} rows; at least 100 are needed")


def unit_of(log: Decisions) -> tuple[Check, Tensor | None]:
    """What an independent unit is: the named or found group, the context where assignment sticks,
    or a row."""
    full = log.propensities.double().numpy() if log.propensities is not None else None
    check, repeated = look.duplicates(
        log.context.numpy(), log.action.numpy(), log.propensity.double().numpy(), full
    )
    if log.group is not None:
        return check, log.group.long()
    return check, None if repeated is None else torch.from_numpy(repeated)


def _unit_name(log: Decisions, sticky: Check) -> str:
    named = log.about.provenance.get("roles", [])
    column = next((c for role, c, *_ in named if role == "group"), None)
    return str(column) if column else "equal context"


def _with_fitted_propensities(log: Decisions) -> Decisions:
    model = fit_multinomial(log.context.double(), log.action.long(), log.n_actions)
    with torch.no_grad():
        table = model(log.context.double(), _on_offer(log))
    fitted = log.clone()
    fitted.propensities = table.float()
    fitted.propensity = table.gather(1, log.action.long()[:, None])[:, 0].float()
    return fitted.described(log.about)


def _on_offer(log: Decisions) -> Tensor | None:
    """Which actions a model of the logging policy may give mass to: None where all are."""
    return None if log.available is None else log.available.double()


def _learners(methods: str | Sequence[str]) -> tuple[Learner, ...]:
    """The learners of these names; the closed-form tilts are called "tilt" and belong to "auto"."""
    from surpass.methods.decisions import learners

    wanted = [methods] if isinstance(methods, str) else list(methods)
    tilts = LEARNERS if "auto" in wanted or "tilt" in wanted else ()
    return (*tilts, *learners([name for name in wanted if name != "tilt"]))


# ----------------------------------------------------------------------------------------------
# after


def _checks(
    log: Decisions, decision: Decision, group: Tensor | None, sticky: Check
) -> tuple[Check, ...]:
    best = decision.best
    unit = group.numpy() if group is not None else None
    found = [
        sticky,
        look.groups(_units(decision) if group is not None else None, _unit_name(log, sticky)),
    ]
    scored = torch.cat([decision.plan.score(j) for j in range(len(decision.plan.bounds))])
    scored = scored if len(scored) else decision.plan.order  # a journal's first look scores nothing
    found.append(_propensities(log, scored, unit, decision))
    if best is None:
        return tuple(found)
    found.append(look.support(best.unsupported, best.p <= decision.level))
    found.append(look.effective_sample_size(best.weight.numpy()))
    if log.time is not None:
        x, moment = _by_time(best, log)
        found += [look.serial_dependence(x, decision.level), look.fading_gain(x, moment)]
    else:
        for check in ("serial dependence", "fading gain"):
            reason = "The log has no time column; name one with --time if it has."
            found.append(Check(check, True, None, None, reason, ran=False))
    return tuple(found)


def _units(decision: Decision) -> int:
    return int(decision.plan.unit.max()) + 1


def _propensities(
    log: Decisions, scored: Tensor, unit: np.ndarray | None, decision: Decision
) -> Check:
    index = scored.numpy()
    context, action = log.context.numpy()[index], log.action.numpy()[index]
    units = unit[index] if unit is not None else None
    if log.propensities is not None:
        table = log.propensities.double().numpy()[index]
        return look.propensities_full(action, table, context, units)
    learn = decision.plan.learn(0) if decision.plan.bounds[0][0] > 0 else scored
    model = fit_multinomial(log.context[learn].double(), log.action[learn].long(), log.n_actions)
    offered = _on_offer(log)
    with torch.no_grad():
        fitted = model(
            log.context[scored].double(), None if offered is None else offered[scored]
        ).numpy()
    p = log.propensity.double().numpy()[index]
    return look.propensities_logged(action, p, fitted, context, units)


def _by_time(best: Tested, log: Decisions) -> tuple[np.ndarray, np.ndarray]:
    assert log.time is not None
    moment = log.time[best.rows].double().numpy()
    order = np.argsort(moment, kind="stable")
    return best.x.numpy()[order], moment[order]


def _learning(decision: Decision) -> Tensor:
    learn = decision.plan.learn(0)
    return learn if len(learn) else decision.plan.order  # given policies learn from no row


def _fitted_reference(rows: Rows) -> nn.Module | None:
    """A model of the reference, where only the propensity of the logged action is known."""
    if rows.reference is not None:
        return None
    return fit_multinomial(rows.context, rows.action, rows.n_actions)


@torch.no_grad()
def _winsorized(decision: Decision, quantile: float) -> Decision:
    """The same test with rewards cut at a quantile of the learning rows; both must pass."""
    cut = float(torch.quantile(decision.rows.reward[_learning(decision)], quantile))
    rows = replace(
        decision.rows, reward=decision.rows.reward.clamp_max(cut), hi=min(decision.range.hi, cut)
    )
    best = decision.best
    assert best is not None
    stages = []
    for stage in best.stages:
        nomination = decision.nominations[stage.stage] if decision.nominations else None
        fitted = nomination.fitted if nomination is not None else _fitted_reference(rows)
        critic = stage.candidate.critic or (nomination.critic if nomination is not None else None)
        assert critic is not None
        found = score_candidate(stage.candidate, rows.take(stage.rows), fitted, critic)
        stages.append(
            replace(
                stage, phi=found.phi, phi_high=found.phi_high, lower=float(found.lower),
                upper=float(found.upper), weight=found.weight, unsupported=found.unsupported,
            )
        )  # fmt: skip
    again = test_stages(
        best.key, stages, best.unit, best.largest_unit, decision.margin, decision.level
    )
    if again.p <= decision.level:
        return decision
    return decision.held(
        f"the gain is not proven for rewards cut at {cut:.4g}: it rests on a few large ones"
    )


def _results(
    decision: Decision, log: Decisions, truth: Any
) -> tuple[tuple[CandidateResult, ...], tuple[Tested, ...]]:
    """The candidates as the report shows them, and as they were weighed."""
    if decision.best is None:
        return (), ()
    shown = [decision.best, *(t for t in decision.tested if t is not decision.best)]
    known = {t.key for t in shown}
    others = [t for t in decision.others() if t.key not in known] if decision.nominations else []
    baseline = float(_earned(decision.rows)[decision.best.rows].mean())
    truth = None if _off_policy(decision.rows) else truth  # its gains are over the logging policy
    every = (*shown, *others)
    return tuple(
        _result(t, decision, log, truth, baseline, tested=t is decision.best) for t in every
    ), every


def _result(
    t: Tested, decision: Decision, log: Decisions, truth: Any, baseline: float, tested: bool
) -> CandidateResult:
    weight = t.weight
    ess = float(weight.sum() ** 2 / (weight**2).sum()) if float(weight.sum()) > 0 else 0.0
    return CandidateResult(
        key=t.key,
        params=t.stages[-1].candidate.label.params,
        value=baseline + t.gain,
        low=baseline + t.gain_low,
        high=baseline + t.gain_high,
        gain=t.gain,
        gain_low=t.gain_low,
        gain_high=t.gain_high,
        ess=ess,
        support=1.0 - t.unsupported,
        p_value=t.p,
        tested=tested,
        agreement=agreement(decision, t, log) if tested else (),
        truth=_true_gain(t, truth),
    )


@torch.no_grad()
def _true_gain(t: Tested, truth: Any) -> float | None:
    if truth is None:
        return None
    table = t.policy(truth.contexts.double(), truth.logging.double())
    return float(truth.value(table) - truth.value())


def _off_policy(rows: Rows) -> bool:
    """Whether the reference is another policy than the one that wrote the log."""
    return rows.reference is not None and rows.reference is not rows.behavior


def _earned(rows: Rows) -> Tensor:
    """Rewards [N] whose mean is the reference's: observed, or importance-weighted where it did not
    log."""
    if rows.reference is None or not _off_policy(rows):
        return rows.reward
    return rows.reference.gather(1, rows.action[:, None])[:, 0] / rows.propensity * rows.reward


def _reference_value(decision: Decision, off_policy: bool) -> Estimate:
    """The reference's mean reward on all rows."""
    rows = decision.rows
    reward = _earned(rows)
    total, unit = reward.numpy(), decision.plan.unit.numpy()
    if decision.plan.grouped:
        size = np.bincount(unit)
        mean = float(total.mean())
        sums = np.bincount(unit, weights=total - mean)
        half = float(ndtri(1 - decision.level) * np.sqrt((sums**2).sum())) / size.sum()
        return Estimate(mean, mean - half, mean + half, "reference")
    lo, hi = rows.lo, rows.hi
    if off_policy:
        most = float((reward.abs() / rows.reward.abs().clamp_min(1e-300)).max().clamp_min(1.0))
        lo, hi = min(lo * most, 0.0), max(hi * most, 0.0)
    bounds = guarded_bounds(total, lo, hi, decision.level)
    return Estimate(bounds.mean, bounds.low, bounds.high, "reference")


@torch.no_grad()
def _settle(decision: Decision, log: Decisions, failed: Check | None) -> Settlement | None:
    best, rows = decision.best, decision.rows
    if best is None:
        return settlement(
            0.0, float(rows.reward.std()), -1.0, 1, float(_earned(rows).mean()), decision.level
        )
    phi = torch.cat([s.phi for s in best.stages])
    scored = rows.take(best.rows)
    target = reference = noise = None
    if scored.reference is not None:
        target = candidate_probabilities(decision, best).numpy()
        reference = scored.reference.numpy()
        q = reward_predictions(decision, best).clamp(rows.lo, rows.hi).numpy()
        two = decision.range.source == "two-valued"
        spread = np.sqrt(np.maximum((q - rows.lo) * (rows.hi - q), 0.0))
        noise = spread if two else np.full_like(q, float(scored.reward.std()))
    guard = min(s.lower for s in best.stages) * decision.plan.largest_unit
    named = settlement(
        best.gain - decision.margin,
        float(phi.std()),
        guard,
        len(phi),
        float(_earned(rows).mean()),
        decision.level,
        target,
        reference,
        noise,
        log.about.actions,
    )
    if failed is not None and failed.name == "effective sample size" and failed.statistic:
        return _at_least(named, len(log.action) * look.LEAST_ESS / failed.statistic)
    return named


def _at_least(named: Settlement, rows: float) -> Settlement:
    """More rows, where the overlap asks for more than the gain does."""
    if named.rows is not None and named.rows >= rows:
        return named
    text = f"About {rows:,.0f} rows of this kind would give enough overlap to judge the policy."
    return replace(named, rows=rows, rows_low=None, rows_high=None, sentence=text)


def _assumptions(
    decision: Decision, log: Decisions, propensity: str, reference: Any
) -> tuple[str, ...]:
    said = []
    if decision.range.assumption:
        said.append(_sentence(decision.range.assumption))
    if propensity == "fitted":
        said.append("The propensities are those of a fitted model of the logging policy.")
    if reference is not None:
        said.append("The reference did not write the log; its own value is estimated from it.")
    if log.propensities is None:
        said.append(
            "Only the logged action's propensity is known; the reference is a fitted model of it."
        )
    said.append(
        "One decision does not change what another earns, rewards are complete, and the logging "
        "policy did not change in ways that its propensities do not show."
    )
    return tuple(said)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _hand_over(decision: Decision, log: Decisions) -> Any:
    from surpass.policies.handover import storable

    best = decision.best
    if best is None or decision.verdict == "REJECT" or not storable(best.policy):
        return None

    def write(folder: Path) -> None:
        from surpass.policies.handover import save

        save(best.policy, folder, about=log.about, reference=_constant_reference(decision.rows))

    return write


def _constant_reference(rows: Rows) -> Tensor | None:
    """The reference's probabilities, [A], where they are the same in every context."""
    rho = rows.reference
    if rho is None or float((rho - rho[:1]).abs().max()) > 1e-9:
        return None
    return rho[0]
