"""Other estimators beside the one that decides: do they agree?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from surpass.data.records import Decisions
from surpass.evaluation.choice import many_actions, through_instrument
from surpass.evaluation.decisions import DEFAULT
from surpass.evaluation.estimation import Panel
from surpass.evaluation.instrumented import by_instrument, usable
from surpass.forms import Estimator
from surpass.improve.diagnose import candidate_probabilities, reward_predictions
from surpass.improve.procedure import Decision, Tested
from surpass.improve.results import Estimate
from surpass.improve.scoring import Rows
from surpass.objectives.views import Query
from surpass.registry import build

__all__ = ["agreement", "query_of", "reasons"]

TITLES = {
    "ips": "IPS", "clipped-ips": "clipped IPS", "snips": "SNIPS", "dm": "direct method", "dr": "DR",
    "sndr": "self-normalized DR", "switch-dr": "Switch-DR", "dros": "DR, shrunk",
    "sg-ips": "subgaussian IPS", "mrdr": "MRDR", "off-cem": "OffCEM (clusters of actions)",
    "iv-ope": "IV (through the instrument)",
}  # fmt: skip
_MOST_ENTRIES = 60_000_000  # rows times actions: above, clusters of actions take minutes


def reasons(log: Decisions) -> tuple[str, ...]:
    """Which estimators stand beside the usual ones, and why, a sentence each."""
    described = log.about.action_features is not None
    full = log.propensities is not None
    wanted, why = many_actions(log.n_actions, len(log), full, described)
    if wanted and len(log) * log.n_actions > _MOST_ENTRIES:
        why = "OffCEM is left out: with so many rows and actions it would take minutes; ask for it "
        why += "with surpass evaluate --estimators off-cem."
    said = through_instrument(log.n_actions, log.instrument)[1]
    return tuple(x for x in (why, said) if x)


def _forms(decision: Decision, log: Decisions, learned: bool) -> dict[str, Estimator]:
    forms: dict[str, Estimator] = {key: build(key) for key in DEFAULT}
    rows, described = decision.rows, log.about.action_features is not None
    wanted, _ = many_actions(rows.n_actions, len(log), rows.behavior is not None, described)
    if wanted and learned and len(log) * rows.n_actions <= _MOST_ENTRIES:
        forms["off-cem"] = build("off-cem")
    if not learned:
        forms = {k: f for k, f in forms.items() if f.nuisances.get("q") is None}
    return forms


def _query(rows: Rows, target: Tensor, q: Tensor | None, described: Any = None) -> Query:
    return Query(
        action=rows.action,
        reward=rows.reward,
        propensity=rows.propensity,
        target=target,
        q=q,
        reference=rows.reference,
        propensities=rows.behavior,
        context=rows.context,
        low=rows.lo,
        high=rows.hi,
        available=rows.available,
        extras={} if described is None else {"action_features": described.numpy()},
    )


def query_of(decision: Decision, tested: Tested) -> Query:
    """The scored rows as estimators see them: the tested policy, and predictions that did not see
    the rows."""
    rows = decision.rows.take(tested.rows)
    return _query(
        rows, candidate_probabilities(decision, tested), reward_predictions(decision, tested)
    )


@torch.no_grad()
def _refitted(
    decision: Decision, tested: Tested, nuisances: dict[str, Any], described: Any
) -> dict[str, Tensor]:
    """Columns of what an estimator fits for itself, on each stage's learning rows."""
    out: dict[str, list[Tensor]] = {}
    for stage in tested.stages:
        learn = decision.rows.take(decision.plan.learn(stage.stage))
        policy = stage.candidate.policy
        target = policy(learn.context, learn.offered).double()
        seen, asked = _query(learn, target, None, described), decision.rows.take(stage.rows)
        empty = _query(asked, target[:0], None, described)
        for column, nuisance in nuisances.items():
            out.setdefault(column, []).append(nuisance.learn(seen)(empty))
    return {column: torch.cat(parts) for column, parts in out.items()}


def agreement(decision: Decision, tested: Tested, log: Decisions) -> tuple[Estimate, ...]:
    """The gain over the reference by each classic estimator, and by those that the log calls for
    (`reasons`), with the interval that the verdict's level gives it.

    Both sides leave out `level`: the intervals read like the verdict's own. Units are summed first.
    """
    base, described = query_of(decision, tested), log.about.action_features
    forms = _forms(decision, log, len(tested.stages) > 1 or decision.plan.bounds[0][0] > 0)
    queries = {}
    for name, form in forms.items():
        own = {c: n for c, n in form.nuisances.items() if n is not None}
        made = _refitted(decision, tested, own, described) if own else {}
        extras = {**base.extras, **{c: v for c, v in made.items() if c != "q"}}
        queries["tested", name] = replace(base, q=made.get("q", base.q), extras=extras)
    panel = Panel(("tested",), forms)
    unit = tested.unit[tested.rows] if tested.largest_unit > 1 else None
    panel.add(queries, unit)
    z = float(stats.norm.isf(tested.level))
    out = []
    for name, form in forms.items():
        _, read = panel.chosen("tested", name)
        half = z * read.gain_error
        title = TITLES.get(name, name)
        out.append(
            Estimate(
                read.gain, read.gain - half, read.gain + half, title, form.biased, form.assumptions
            )
        )
    if log.instrument is not None and usable(log):
        out.append(_instrumental(log[tested.rows].described(log.about), base.target, tested.level))
    return tuple(out)


def _instrumental(log: Decisions, target: Tensor, level: float) -> Estimate:
    """The gain through the instrument, on the scored rows."""
    (r,) = by_instrument({"tested": target}, log, level=2 * level)
    title = TITLES["iv-ope"]
    return Estimate(r.gain, r.gain_low, r.gain_high, title, r.biased, r.assumptions)
