"""The panel and the point estimate against scores in memory."""

from __future__ import annotations

from math import inf

import pytest
import torch

from surpass.evaluation.estimation import Panel, point
from surpass.forms import Estimator
from surpass.objectives.scores import (
    clipped,
    importance,
    modeled,
    paired,
    self_normalized,
    switched,
    tuned,
    weighted,
)
from surpass.objectives.views import Query


def asked(n: int = 5000, actions: int = 4) -> Query:
    g = torch.Generator().manual_seed(0)
    mu, pi = (
        torch.softmax(k * torch.randn(n, actions, generator=g, dtype=torch.float64), -1)
        for k in (0.7, 1.5)
    )
    action = torch.multinomial(mu, 1, generator=g)
    return Query(
        action=action[:, 0],
        reward=torch.rand(n, generator=g, dtype=torch.float64) + action[:, 0],
        propensity=mu.gather(1, action)[:, 0],
        target=pi,
        q=torch.rand(n, actions, generator=g, dtype=torch.float64),
        reference=mu,
        propensities=mu,
    )


SCORES = {
    "dr": weighted(importance(), modeled()),
    "sndr": self_normalized(importance(), modeled()),
    "sum": self_normalized() + 0.5 * weighted(),
    "switch": tuned(tuple(weighted(switched(t), modeled()) for t in (inf, 9.0, 3.0, 1.0))),
    "clip": tuned(tuple(weighted(clipped(t)) for t in (inf, 9.0, 3.0, 1.0)), rule="slope"),
}


@pytest.mark.parametrize("name", SCORES)
def test_the_panel_reads_the_scores_mean_spread_and_gain(name):
    query, score = asked(), SCORES[name]
    panel = Panel(("p",), {name: Estimator(score)})
    for part in torch.arange(5000).split(777):
        panel.add({("p", name): query.rows(part)})
    cell, read = panel.chosen("p", name)
    scores, gains = score(query), paired(cell.score)(query)
    assert read.value == pytest.approx(scores.mean().item(), rel=1e-10)
    assert read.error == pytest.approx(scores.std().item() / 5000**0.5, rel=1e-9)
    assert read.gain == pytest.approx(gains.mean().item(), rel=1e-9)
    assert read.gain_error == pytest.approx(gains.std().item() / 5000**0.5, rel=1e-9)
    assert point(score, query, chunk=777) == pytest.approx(scores.mean().item(), rel=1e-10)


def test_draws_spread_as_the_standard_errors_say():
    query = asked()
    panel = Panel(("p",), {k: Estimator(s) for k, s in SCORES.items()})
    panel.add({("p", k): query for k in SCORES})
    picked = [panel.chosen("p", k) for k in SCORES]
    drawn = panel.draws([cell for cell, _ in picked], 4000, seed=1)
    for (_, read), rows in zip(picked, drawn, strict=True):
        assert rows[:, 0].std().item() == pytest.approx(read.error, rel=0.05)
        assert rows[:, 2].std().item() == pytest.approx(read.gain_error, rel=0.05)
        torch.testing.assert_close(rows[:, 0] - rows[:, 1], rows[:, 2])
