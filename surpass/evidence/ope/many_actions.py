"""Evidence for estimators on logs with very many actions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.critics.conjunct import ActionClusters, ConjunctEffects
from surpass.evaluation.decisions import evaluate
from surpass.evidence.declaration import Result, at_most, evidence
from surpass.forms import Estimator
from surpass.methods.ope.clusters import off_cem
from surpass.methods.ope.estimators import ips
from surpass.objectives.clusters import cluster_importance
from surpass.objectives.scores import importance, modeled, no_weight, weighted
from surpass.objectives.views import Query
from surpass.tasks.many_actions import ManyActions, many_actions

LOGS, ROWS = 12, 1500


def _forms(world: ManyActions) -> dict[str, Estimator]:
    true = tuple(world.cluster.tolist())
    actions = len(true)
    one_step = {"q": ConjunctEffects(ActionClusters(given=(0,) * actions), least=2.0)}
    given = ActionClusters(given=true)
    return {
        "off-cem": off_cem(true, least=0.0),
        "one step": off_cem(true, least=2.0),
        "k-means": off_cem(50, least=0.0),
        "mips": Estimator(weighted(cluster_importance()), {"cluster": given}),
        "ips": ips(),
        "dr": Estimator(weighted(importance(), modeled()), one_step),
        "dm": Estimator(weighted(no_weight(), modeled()), one_step),
    }


def _errors(actions: int, seed: int, logs: int, names: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Value minus truth of every estimator (or those named) on each log."""
    found: dict[str, list[float]] = {}
    for k in range(logs):
        world = many_actions(actions, seed=1000 * seed + k)
        log = world.draw(ROWS, 1000 * seed + k + 500)
        target, truth = world.placed(world.target, log), world.truth.value(world.target)
        forms = {k: v for k, v in _forms(world).items() if not names or k in names}
        table = evaluate(target, log, estimators=forms, folds=2, resamples=20)
        for result in table:
            found.setdefault(result.estimator, []).append(result.value - truth)
    return {name: torch.tensor(values) for name, values in found.items()}


def _bias_with_true_differences(seed: int, logs: int = 200) -> float:
    """Mean error over its standard error in one problem, f being right inside clusters."""
    world = many_actions(200, seed=seed)
    truth, errors = world.truth.value(world.target), []
    for k in range(logs):
        log = world.draw(ROWS, 10_000 * (seed + 1) + k)
        query = Query(
            log.action, log.reward, log.propensity, world.placed(world.target, log),
            q=world.placed(world.inside, log), propensities=log.propensities,
            extras={"cluster": world.cluster.expand(ROWS, -1)},
        )  # fmt: skip
        errors.append(float(weighted(cluster_importance(), modeled())(query).mean()) - truth)
    found = torch.tensor(errors)
    return float(found.mean() / (found.std() / logs**0.5))


@evidence(
    "off-cem",
    claim="with 800 actions, OffCEM's mean squared error is at most half that of IPS and of doubly "
    "robust estimation, and no larger than that of MIPS and of the direct method",
    setting="200 users, actions with ten five-level features in 50 clusters, 1,500 logged rows "
    "with reward noise 3, a new problem for each of 12 logs a seed",
    baseline="the better of IPS and DR (its ridge model on the same action features)",
    metric="mean squared error, 800 actions",
    bar=at_most(0.5, times=True),
    minutes=2,
)
def off_cem_evidence(seed: int, zoo: Any) -> Result:
    many, few = _errors(800, seed, LOGS), _errors(50, seed, LOGS, ("off-cem", "dr"))
    mse = {name: float(e.square().mean()) for name, e in many.items()}
    small = {name: float(e.square().mean()) for name, e in few.items()}
    return Result(
        mse["off-cem"],
        min(mse["ips"], mse["dr"]),
        {
            "mse against MIPS": (mse["off-cem"], mse["mips"], at_most(1.0, times=True)),
            "mse against the direct method": (mse["off-cem"], mse["dm"], at_most(1.0, times=True)),
            "mse against DR, 50 actions": (small["off-cem"], small["dr"], at_most(1.5, times=True)),
            "|mean error| over its standard error, true differences": (
                abs(_bias_with_true_differences(seed)), 0.0, at_most(2.0, alone=True),
            ),
            "mse of the one-step model": (mse["one step"], mse["off-cem"]),
            "mse with k-means clusters": (mse["k-means"], min(mse["ips"], mse["dr"])),
        },
    )  # fmt: skip
