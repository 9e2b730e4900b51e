"""Weekly looks at a growing log that stay honest: every new row judges a policy that was frozen
before it came.

Week k: a policy is nominated from all earlier rows and frozen in the journal, with the reward
model and the scale of its scores. Week k + 1: the new rows alone are scored by it. With any number
of looks, an e-value decides (a mixture over 20 bets, promote at 1 / level; Waudby-Smith and Ramdas,
Estimating means of bounded random variables by betting, 2024); with a number of looks that was
fixed beforehand, the pooled guarded test against O'Brien and Fleming's boundary (A multiple testing
procedure for clinical trials, 1979).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from scipy import stats
from torch import Tensor, nn

from surpass.critics.deviations import DeviationModel
from surpass.data.encoders import Encoder
from surpass.data.records import Decisions
from surpass.errors import InputError, atomic
from surpass.improve.decisions import check_options, explain, unit_of
from surpass.improve.improvement import Improvement
from surpass.improve.nominate import Candidate, Label, Learner, nominate, score_candidate
from surpass.improve.procedure import LEARNERS, Decision, StageScores, Tested, test_stages
from surpass.improve.results import Verdict
from surpass.improve.scoring import RewardRange, Rows, reward_range
from surpass.improve.stages import Plan
from surpass.policies.tilted import rebuild, specification

__all__ = ["boundary", "e_value", "encoder_of", "improve_with_journal", "log_wealth"]

BETS = np.geomspace(0.005, 0.3, 20)
NEWEST = "a policy was frozen; the rows that come next will judge it"


# ----------------------------------------------------------------------------------------------
# statistics


def log_wealth(x: np.ndarray, guard: float) -> np.ndarray:
    """log prod(1 + lambda x) for each of the 20 bets, [20]; bets are capped at 0.99 / |guard| so
    that none is ruined.

    Args:
        x: scores of new units, divided by their scale. guard: the smallest value that a score
            could take.
    """
    most = 0.99 / abs(guard) if guard < 0 else np.inf
    bets = np.minimum(BETS, most)
    return np.log1p(bets[:, None] * x[None, :]).sum(1)


def e_value(wealth: np.ndarray) -> float:
    """The mean of the bets' wealth: under the null its expectation never exceeds 1, whenever one
    looks."""
    top = float(wealth.max())
    return float(np.exp(min(top, 700.0)) * np.exp(wealth - top).mean())


@cache
def boundary(looks: int, level: float = 0.05, walks: int = 100_000) -> float:
    """C_K: a random walk of K looks crosses C_K sqrt(K) with probability `level` (simulated, fixed
    seed)."""
    steps = np.random.default_rng(20_240_229).standard_normal((walks, looks))
    highest = steps.cumsum(1).max(1) / np.sqrt(looks)
    return float(np.quantile(highest, 1 - level))


# ----------------------------------------------------------------------------------------------
# the file


@dataclass(frozen=True)
class Frozen:
    """A policy of the journal: nominated from the first `learned` rows; it judges rows `learned`
    to `until`."""

    candidate: Candidate
    fitted: nn.Module | None
    scale: float
    learned: int
    until: int | None = None


def _pack(module: nn.Module) -> dict[str, Any]:
    tensors = save_tensors({k: v.contiguous() for k, v in module.state_dict().items()})
    spec = (
        {"config": module.config} if isinstance(module, DeviationModel) else specification(module)
    )
    return {**spec, "tensors": base64.b64encode(tensors).decode("ascii")}


def _unpack(entry: dict[str, Any]) -> nn.Module:
    module = rebuild(entry) if "class" in entry else DeviationModel(**entry["config"])
    module.load_state_dict(load_tensors(base64.b64decode(entry["tensors"])))
    return module


def _store(path: Path, journal: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(journal, indent=1), encoding="utf-8")


def _open(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The journal, or a new one; its level, margin, range and looks were fixed when it was
    begun."""
    if not path.exists():
        return {"format": 1, **settings, "weeks": []}
    try:
        journal = json.loads(path.read_text(encoding="utf-8"))
        begun = {key: journal[key] for key in settings}
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a journal of surpass: {error}; give another file"
        ) from error
    for key, value in settings.items():
        if begun[key] != value:
            raise InputError(
                f"{path} was begun with {key} = {begun[key]}, not {value}; what a journal tests "
                "is fixed when it begins. Give the same, or begin another journal"
            )
    return journal


def encoder_of(path: Path) -> Encoder | None:
    """The encoder that a journal began with, by which the rows that come later are read too; None
    where there is no journal yet, or its log was numbers already."""
    try:
        held = json.loads(path.read_text(encoding="utf-8")).get("encoder")
    except (OSError, ValueError, AttributeError):
        return None  # what is wrong with the file is said when it is opened
    return None if held is None else Encoder.from_json(held)


def row_hash(log: Decisions, rows: int) -> str:
    """A fingerprint of the first rows of a log: contexts, actions, rewards and propensities."""
    digest = hashlib.sha256()
    for column in (
        log.context.double(),
        log.action.long(),
        log.reward.double(),
        log.propensity.double(),
    ):
        digest.update(column[:rows].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _new_rows(log: Decisions, journal: dict[str, Any], path: Path) -> int:
    """How many rows the journal has seen; a new one notes how the log is read.

    Raises:
        InputError: when they are not the first rows of the log, its actions are others, or nothing
            is new.
    """
    weeks = journal["weeks"]
    if not weeks:
        journal["actions"] = list(log.about.actions)
        if log.about.encoder is not None:
            journal["encoder"] = log.about.encoder.to_json()
        return 0
    if (known := journal.get("actions")) not in (None, list(log.about.actions)):
        new = next((f" ({a!r} is new)" for a in log.about.actions if a not in known), "")
        raise InputError(
            f"{path} was begun with other actions{new}; begin another journal, and name all that "
            "may come with --actions"
        )
    seen, n = int(weeks[-1]["learned"]), len(log.action)
    if n < seen or row_hash(log, seen) != weeks[-1]["hash"]:
        raise InputError(
            f"the first {seen:,} rows of the log are not those that {path} has seen; "
            "give the whole log, old rows first and unchanged"
        )
    if n == seen:
        raise InputError(
            f"{path} has seen all {seen:,} rows of the log; come back when there are new ones"
        )
    return seen


# ----------------------------------------------------------------------------------------------
# the job


def improve_with_journal(
    log: Decisions,
    path: Path,
    *,
    looks: int | None = None,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    reward_limits: tuple[float, float] | None = None,
    accept_observed_range: bool = False,
    learners: Sequence[Learner] = LEARNERS,
    name: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Improvement:
    """One look: score the new rows by the frozen policy, decide, and freeze the next policy.

    Args:
        log: the whole log so far, old rows first.
        path: the journal; made on the first look.
        looks: the number of looks in which rows are scored, where it was fixed beforehand.
        level, margin, reward_limits, accept_observed_range: as for a single run; fixed when the
            journal begins.

    Raises:
        InputError: when an option is out of its range, the log does not continue the journal, or a
            setting differs from the journal's.
    """
    check_options(level, margin, log)
    if looks is not None and looks < 1:
        raise InputError(f"--looks is {looks}; give the number of looks that are planned")
    limits = reward_range(log.reward.double(), reward_limits)
    if limits.source == "observed" and not accept_observed_range:
        raise InputError(
            "a journal needs --reward-range LO HI (or --accept-observed-range) from the start"
        )
    settings = {"level": level, "margin": margin, "looks": looks}
    if limits.source == "stated":
        settings["range"] = [limits.lo, limits.hi]
    journal = _open(path, settings)
    seen = _new_rows(log, journal, path)
    rows = Rows.of(log, limits.lo, limits.hi)
    sticky, group = unit_of(log)
    plan = _plan(len(rows), group, [w["learned"] for w in journal["weeks"]])
    weeks = [_thaw(w) for w in journal["weeks"]]
    ends = [w.learned for w in weeks[1:]] + [len(rows)]
    weeks = [replace(w, until=end) for w, end in zip(weeks, ends, strict=False)]
    stages = [_score(j, w, rows) for j, w in enumerate(weeks)]
    tested = (
        test_stages("journal", stages, plan.unit, plan.largest_unit, margin, level)
        if stages
        else None
    )
    verdict, reason, figures = _judge(tested, stages, plan, journal, limits)
    decision = Decision(
        verdict,
        reason,
        tested,
        (tested,) if tested else (),
        (verdict == "PROMOTE",) if tested else (),
        (),
        rows,
        plan,
        limits,
        level,
        margin,
        seed,
    )
    result = explain(
        decision,
        log,
        group,
        sticky,
        name=name,
        say=say,
        design="journal",
        assumptions=_assumptions(limits),
    )
    say("freezing the policy that the next rows will judge")
    nomination = nominate(
        rows,
        plan.unit,
        learners,
        scored_units=max(len(rows) - seen, 100),
        largest_unit=plan.largest_unit,
        margin=margin,
        seed=seed,
    )
    if nomination.best is None:
        raise InputError("no candidate differs from the reference yet; come back with more rows")
    chosen = nomination.candidates[nomination.best.label.key]
    journal["weeks"].append(
        {
            "learned": len(rows),
            "hash": row_hash(log, len(rows)),
            "key": chosen.label.key,
            "params": chosen.label.params,
            "scale": nomination.best.sd,
            "policy": _pack(chosen.policy),
            "critic": _pack(nomination.critic),
            "fitted": None if nomination.fitted is None else _pack(nomination.fitted),
            **figures,
        }
    )
    _store(path, journal)
    return replace(
        result, diagnosis={**result.diagnosis, "journal": {"file": str(path), **figures}}
    )


def _assumptions(limits: RewardRange) -> tuple[str, ...]:
    text = limits.assumption
    return (text[:1].upper() + text[1:] + ".",) if text else ()


def _plan(rows: int, group: Tensor | None, learned: list[int]) -> Plan:
    """The weeks as stages, in the order of the log."""
    unit = torch.arange(rows) if group is None else torch.unique(group, return_inverse=True)[1]
    ends = [*learned[1:], rows]
    bounds = tuple(zip(learned, ends, strict=True)) if learned else ((rows, rows),)
    return Plan(torch.arange(rows), unit, bounds, int(torch.bincount(unit).max()), True)


def _thaw(entry: dict[str, Any]) -> Frozen:
    label = Label(entry["key"], "journal", entry["params"])
    candidate = Candidate(label, _unpack(entry["policy"]), _unpack(entry["critic"]))
    fitted = None if entry["fitted"] is None else _unpack(entry["fitted"])
    return Frozen(candidate, fitted, float(entry["scale"]), int(entry["learned"]))


@torch.no_grad()
def _score(number: int, week: Frozen, rows: Rows) -> StageScores:
    index = torch.arange(week.learned, week.until or len(rows))
    critic = week.candidate.critic
    assert critic is not None
    found = score_candidate(week.candidate, rows.take(index), week.fitted, critic)
    return StageScores(
        number, index, week.candidate, None, week.scale, found.phi, found.phi_high,
        float(found.lower), float(found.upper), found.weight, found.unsupported,
    )  # fmt: skip


def _wealth(stages: Sequence[StageScores], plan: Plan, margin: float) -> np.ndarray:
    total = np.zeros(len(BETS))
    for s in stages:
        x = ((s.phi - margin) / s.scale).numpy()
        if plan.grouped:
            _, label = np.unique(plan.unit[s.rows].numpy(), return_inverse=True)
            x = np.bincount(label, weights=x)
        total += log_wealth(x, plan.largest_unit * (s.lower - margin) / s.scale)
    return total


def _judge(
    tested: Tested | None,
    stages: Sequence[StageScores],
    plan: Plan,
    journal: dict[str, Any],
    limits: RewardRange,
) -> tuple[Verdict, str, dict[str, Any]]:
    if tested is None:
        return "HOLD", f"first look: {NEWEST}", {"look": 0}
    level, looks, look = journal["level"], journal["looks"], len(stages)
    e = e_value(_wealth(stages, plan, journal["margin"]))
    figures = {"look": look, "e": e, "inverse": 1 / max(e, 1e-300), "p": tested.p}
    condition = f", provided that {limits.assumption}" if limits.source == "observed" else ""
    if looks is None:
        looked = f"{look} look{'s' * (look > 1)}"
        said = f"after {looked} the e-value is {e:.3g}, and {1 / level:g} is needed"
        proven = e >= 1 / level
    else:
        if look > looks:
            raise InputError(f"all {looks} planned looks were taken; begin another journal")
        z = float(stats.norm.isf(min(max(tested.p, 1e-300), 1 - 1e-12)))
        needed = boundary(looks, level) / np.sqrt(look / looks)
        figures |= {"z": z, "needed": float(needed)}
        said = (
            f"at look {look} of {looks} the test stands at z = {z:.2f}, and {needed:.2f} is needed"
        )
        proven = z >= needed
    if proven:
        return (
            "PROMOTE",
            f"{said}: the mixture of the frozen policies earns more{condition}",
            figures,
        )
    return "HOLD", f"{said}; {NEWEST}", figures
