"""Evidence for estimators on logged episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surpass.critics.fitted_q import FittedQ, Fourier, RandomBins
from surpass.evaluation.trajectories import fitted, trajectory_query
from surpass.evidence.declaration import Result, at_most, evidence
from surpass.methods.ope.trajectories import fqe, pdis, snpdis, sntis, tis
from surpass.objectives.trajectory_scores import abstract_reward_process
from surpass.objectives.views import TrajectoryQuery
from surpass.tasks.control import CartPole
from surpass.tasks.episodes import episodes

GAMMA, STEPS, LOGS = 0.99, 200, 8
BINS, LASTS = (4, 8, 16, 32, 64), (1, 2, 4, 8, None)
GAINS = torch.tensor([0.1, 0.3, 3.0, 1.0])


def _softmax_controller(beta: float, uniform: float) -> Callable[[Tensor], Tensor]:
    def act(obs: Tensor) -> Tensor:
        push = beta * (obs.double() @ GAINS.double())
        return (1 - uniform) * torch.softmax(torch.stack((-push, push), -1), -1) + uniform / 2

    return act


BEHAVIOR, TARGET = _softmax_controller(0.5, 0.3), _softmax_controller(1.0, 0.1)


def _star(query: TrajectoryQuery, seed: int, **shown: Any) -> dict[tuple[int, Any], float]:
    """Values of the grid of bins and ratios."""
    out = {}
    for bins in BINS:
        found = RandomBins(bins, seed, **shown).learn(query)(query)
        asked = TrajectoryQuery(**{**vars_of(query), "extras": {"bin": found}})
        for last in LASTS:
            out[bins, last] = float(abstract_reward_process(last, STEPS)(asked))
    return out


def vars_of(query: TrajectoryQuery) -> dict[str, Any]:
    """The fields of a query."""
    return {name: getattr(query, name) for name in query.__dataclass_fields__}


@evidence(
    "star-arp",
    claim="the best cell of STAR's grid has a lower mean squared error than the best importance "
    "sampling or fitted Q estimator, and the median cell than the median of those",
    setting="cart-pole of at most 200 steps, gamma 0.99, 50 and 200 episodes of a noisy linear "
    "controller, 8 logs a seed, truth from 5,000 episodes of the target",
    baseline="the best of IS, PDIS, WIS, weighted PDIS and FQE with linear and with Fourier "
    "features, in hindsight like the cell",
    metric="mean squared error of the best, 50 episodes",
    bar=at_most(1.0, times=True),
    minutes=2,
    note="The best cell wins with 50 episodes, and all ratios remove most of the bias that hidden "
    "speeds bring, but the median cell does not beat the baselines: with random bins of "
    "cart-pole's state, products of one to four ratios stay biased by a third to a half of it.",
)
def star_evidence(seed: int, zoo: Any) -> Result:
    generator = torch.Generator().manual_seed(seed)
    world = CartPole(dtype=torch.float64)
    on_policy = episodes(world, TARGET, 5000, STEPS, generator)
    truth = float(trajectory_query(TARGET, on_policy, GAMMA).paid.mean())
    forms = {
        "tis": tis(), "pdis": pdis(), "sntis": sntis(), "snpdis": snpdis(),
        "fqe": fqe(FittedQ(Fourier(0)), 0), "fqe-fourier": fqe(FittedQ(Fourier(40)), 0),
    }  # fmt: skip
    mse: dict[int, tuple[dict[Any, float], dict[Any, float]]] = {}
    hidden: dict[Any, float] = {}
    for n in (50, 200):
        cells: dict[Any, list[float]] = {}
        others: dict[Any, list[float]] = {}
        blind: dict[Any, list[float]] = {}
        for k in range(LOGS):
            log = episodes(world, BEHAVIOR, n, STEPS, generator)
            query = replace(trajectory_query(TARGET, log, GAMMA), cut=None)  # 200 steps are all
            for cell, value in _star(query, k).items():
                cells.setdefault(cell, []).append(value - truth)
            for name, form in forms.items():
                value = float(form.score(fitted(query, form)).mean())
                others.setdefault(name, []).append(value - truth)
            for (_, last), value in _star(query, k, shown=(0, 2)).items():
                blind.setdefault(last, []).append(value - truth)
        mse[n] = _squares(cells), _squares(others)
        hidden = {last: abs(float(torch.tensor(e).mean())) for last, e in blind.items()}

    def middle(errors: dict[Any, float]) -> float:
        return float(torch.tensor(list(errors.values())).median())

    first, second = mse[50], mse[200]
    return Result(
        min(first[0].values()),
        min(first[1].values()),
        {
            "mean squared error of the best, 200 episodes": (
                min(second[0].values()), min(second[1].values()), at_most(1.0, times=True),
            ),
            "median mean squared error, 50 episodes": (
                middle(first[0]), middle(first[1]), at_most(1.0, times=True),
            ),
            "median mean squared error, 200 episodes": (
                middle(second[0]), middle(second[1]), at_most(1.0, times=True),
            ),
            "|bias| with speeds hidden, all ratios against one": (
                hidden[None], hidden[1], at_most(0.0),
            ),
        },
    )  # fmt: skip


def _squares(errors: dict[Any, list[float]]) -> dict[Any, float]:
    return {k: float(torch.tensor(e).square().mean()) for k, e in errors.items()}
