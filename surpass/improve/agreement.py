"""Other estimators beside the one that decides: do they agree?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from surpass.evaluation.decisions import DEFAULT
from surpass.evaluation.estimation import Panel
from surpass.forms import Estimator
from surpass.improve.diagnose import candidate_probabilities, reward_predictions
from surpass.improve.procedure import Decision, Tested
from surpass.improve.results import Estimate
from surpass.improve.scoring import Rows
from surpass.objectives.views import Query
from surpass.registry import build

__all__ = ["agreement", "query_of"]

TITLES = {
    "ips": "IPS", "clipped-ips": "clipped IPS", "snips": "SNIPS", "dm": "direct method", "dr": "DR",
    "sndr": "self-normalized DR", "switch-dr": "Switch-DR", "dros": "DR, shrunk",
    "sg-ips": "subgaussian IPS", "mrdr": "MRDR",
}  # fmt: skip


def _query(rows: Rows, target: Tensor, q: Tensor | None) -> Query:
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
    )


def query_of(decision: Decision, tested: Tested) -> Query:
    """The scored rows as estimators see them: the tested policy, and predictions that did not see
    the rows."""
    rows = decision.rows.take(tested.rows)
    return _query(
        rows, candidate_probabilities(decision, tested), reward_predictions(decision, tested)
    )


@torch.no_grad()
def _refitted(decision: Decision, tested: Tested, nuisance: Any) -> Tensor:
    """Predictions of a reward model that an estimator fits for itself, on each stage's learning
    rows."""
    out = []
    for stage in tested.stages:
        learn = decision.rows.take(decision.plan.learn(stage.stage))
        policy = stage.candidate.policy
        target = policy(learn.context, learn.offered).double()
        predict = nuisance.learn(_query(learn, target, None))
        out.append(predict(_query(decision.rows.take(stage.rows), target[:0], None)))
    return torch.cat(out)


def agreement(decision: Decision, tested: Tested) -> tuple[Estimate, ...]:
    """The gain over the reference by each classic estimator, with the interval that the verdict's
    level gives it.

    Both sides leave out `level`: the intervals read like the verdict's own. Units are summed first.
    """
    forms: dict[str, Estimator] = {key: build(key) for key in DEFAULT}
    base = query_of(decision, tested)
    queries, learned = {}, len(tested.stages) > 1 or decision.plan.bounds[0][0] > 0
    for name, form in list(forms.items()):
        own = form.nuisances.get("q")
        if own is not None and not learned:
            del forms[name]
            continue
        q = _refitted(decision, tested, own) if own is not None else base.q
        queries["tested", name] = replace(base, q=q)
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
    return tuple(out)
