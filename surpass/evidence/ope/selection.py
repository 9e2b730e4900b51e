"""Evidence for choosing policies by their estimates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.critics.fitted_q import FittedQ
from surpass.evaluation.portfolio import cvar, portfolio, return_distribution
from surpass.evaluation.trajectories import fitted, trajectory_query
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.forms import Estimator
from surpass.methods.ope.trajectories import drt, fqe, pdis, sndrt, snpdis, tis
from surpass.objectives.trajectory_scores import marginal, trajectory
from surpass.tasks.tabular import TabularMDP

HORIZON, GAMMA = 10, 0.95


def _world(states: int, generator: torch.Generator) -> TabularMDP:
    def simplex(*shape: int) -> Tensor:
        return torch.softmax(2 * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)

    reward = torch.randn(states, 3, generator=generator, dtype=torch.float64)
    return TabularMDP(simplex(states, 3, states), reward, simplex(states), GAMMA, HORIZON)


def _softmax(mdp: TabularMDP, strength: float) -> Tensor:
    q = mdp.evaluate(mdp.uniform()).q[0]
    return torch.softmax(strength * q, -1)


def _forms() -> dict[str, Estimator]:
    model = FittedQ(by_step=True)
    return {"dm": fqe(model, 0), "pdis": pdis(), "snpdis": snpdis(), "dr": drt(model)}


@evidence(
    "sharpe-ratio-at-k",
    claim="where the estimators that rank first by SharpeRatio@4 and by mean squared error differ, "
    "the former's portfolio has the better worst policy in more than half of the logs",
    setting="tabular problems of 20 states and 3 actions solved exactly, 10 softmax candidates, "
    "300 logged episodes, 12 problems a seed",
    baseline="the estimator with the smallest mean squared error (chosen, like the other, with the "
    "true values)",
    metric="share of differing logs in which the worst deployed policy is better",
    bar=at_least(0.5, alone=True),
    minutes=2,
)
def sharpe_evidence(seed: int, zoo: Any) -> Result:
    generator = torch.Generator().manual_seed(seed)
    wins, losses = 0, 0
    for _ in range(12):
        mdp = _world(20, generator)
        behavior = _softmax(mdp, 0.3)
        jitter = 1.5 * torch.randn(10, 20, 3, generator=generator, dtype=torch.float64)
        strengths = torch.linspace(-1.0, 2.0, 10)
        policies = [
            torch.softmax(_softmax(mdp, float(b)).log() + e, -1)
            for b, e in zip(strengths, jitter, strict=True)
        ]
        true = torch.stack([mdp.evaluate(p).value for p in policies])
        logging = float(mdp.evaluate(behavior).value)
        log = mdp.rollout(behavior, 300, generator=generator, dtype=torch.float64)
        estimates: dict[str, list[float]] = {}
        for pi in policies:
            query = trajectory_query(lambda obs, pi=pi: obs @ pi, log, GAMMA)
            for name, form in _forms().items():
                value = float(form.score(fitted(query, form)).mean())
                estimates.setdefault(name, []).append(value)
        found = {k: torch.tensor(v, dtype=torch.float64) for k, v in estimates.items()}
        portfolios = {k: portfolio(v, true, logging, 4) for k, v in found.items()}
        by_ratio = max(found, key=lambda k: portfolios[k].sharpe)
        by_error = min(found, key=lambda k: float((found[k] - true).square().mean()))
        gap = portfolios[by_ratio].worst - portfolios[by_error].worst
        wins, losses = wins + (gap > 1e-9), losses + (gap < -1e-9)
    return Result(wins / max(wins + losses, 1), 0.5, {"logs that differ": (wins + losses, 12)})


@evidence(
    "scope-rl",
    claim="doubly robust estimates have no more error than per-decision ones, and those no more "
    "than whole-episode ones; exact marginal ratios are unbiased; the distribution of returns is "
    "right to 0.1 and its worst tenth to 10 %; intervals cover",
    setting="a tabular problem of 15 states, 3 actions and 10 steps, solved exactly, 2,000 logged "
    "episodes, 20 logs a seed",
    baseline="per-decision importance sampling",
    metric="mean squared error, doubly robust",
    bar=at_most(1.0, times=True),
    minutes=2,
)
def scope_evidence(seed: int, zoo: Any) -> Result:
    generator = torch.Generator().manual_seed(seed)
    mdp = _world(15, generator)
    behavior, target = _softmax(mdp, 0.1), _softmax(mdp, 0.5)
    truth = float(mdp.evaluate(target).value)
    ratio = mdp.occupancy(target) / mdp.occupancy(behavior)
    steps = torch.arange(HORIZON)
    own = mdp.rollout(target, 20_000, generator=generator, dtype=torch.float64)
    returns = trajectory_query(lambda obs: obs @ target, own, GAMMA).paid.sort().values
    model = FittedQ(by_step=True)
    forms = {
        "tis": tis(), "pdis": pdis(), "snpdis": snpdis(), "dr": drt(model), "sndr": sndrt(model),
        "marginal": Estimator(trajectory(marginal())),
    }  # fmt: skip
    errors: dict[str, list[float]] = {}
    covered, sup, tail = 0, 0.0, 0.0
    worst = float(returns[: len(returns) // 10].mean())
    for _ in range(20):
        log = mdp.rollout(behavior, 2000, generator=generator, dtype=torch.float64)
        query = trajectory_query(lambda obs: obs @ target, log, GAMMA)
        assert log.extras is not None
        query.extras["marginal"] = ratio[steps, log.extras["state"], query.action]  # type: ignore[index]
        for name, form in forms.items():
            score = form.score(fitted(query, form))
            errors.setdefault(name, []).append(float(score.mean()) - truth)
            if name == "dr":
                half = 1.96 * float(score.std()) / len(score) ** 0.5
                covered += abs(errors[name][-1]) < half
        place, F = return_distribution(query.paid, query.ratio.prod(1))
        exact = torch.searchsorted(returns, place, right=True) / len(returns)
        sup = max(sup, float((F - exact).abs().max()))
        tail += abs(cvar(place, F, 0.1) / worst - 1) / 20
    e = {k: torch.tensor(v) for k, v in errors.items()}
    mse = {k: float(v.square().mean()) for k, v in e.items()}
    z = {k: abs(float(v.mean() / (v.std() / len(v) ** 0.5))) for k, v in e.items()}
    also: dict[str, tuple[Any, ...]] = {
        "mean squared error, per decision against whole episodes": (
            mse["pdis"], mse["tis"], at_most(1.0, times=True),
        ),
        "mean squared error, exact marginal ratios": (mse["marginal"], mse["pdis"]),
        "largest error of the distribution function": (sup, 0.0, at_most(0.1, alone=True)),
        "relative error of the worst tenth": (tail, 0.0, at_most(0.1, alone=True)),
        "coverage of 95 % intervals, doubly robust": (
            covered / 20, 0.95, at_least(0.88, alone=True),
        ),
        "bias of weighted per-decision, relative": (
            abs(float(e["snpdis"].mean()) / truth), 0.0, at_most(0.02, alone=True),
        ),
    }  # fmt: skip
    for name in ("tis", "pdis", "dr", "marginal"):
        also[f"|mean error| over its standard error, {name}"] = (
            z[name], 0.0, at_most(3.0, alone=True),
        )  # fmt: skip
    return Result(mse["dr"], mse["pdis"], also)
