"""Estimators beside the one that decides: a thousand actions, an instrument, and portfolios."""

from __future__ import annotations

import json

import pytest
import torch

from surpass.data.records import About, Decisions
from surpass.improve.decisions import improve_decisions
from surpass.tasks.many_actions import many_actions


@pytest.fixture(scope="module")
def thousand():
    """A log with 1,000 actions that a hundred users were shown."""
    log = many_actions(1000, users=100, seed=0).draw(800, seed=0)
    return improve_decisions(log, methods="tilt", accept_observed_range=True)


def test_a_thousand_actions_get_clusters_beside_the_verdict_and_a_sentence(thousand, tmp_path):
    names = {e.name: e for e in thousand.best.agreement}
    assert names["OffCEM (clusters of actions)"].biased
    (why,) = thousand.diagnosis["estimators"]
    assert why.startswith("OffCEM is added: with 1,000 actions each was logged about once")
    folder = thousand.save(tmp_path / "report")
    told = json.loads((folder / "report.json").read_text())
    assert told["diagnosis"]["estimators"] == [why]
    assert "OffCEM is added" in (folder / "report.html").read_text()
    from rich.console import Console

    console = Console(width=100, record=True, file=open(tmp_path / "out", "w"))  # noqa: SIM115
    console.print(thousand)
    assert "OffCEM is added" in console.export_text()


def test_candidates_are_shown_as_portfolios(thousand, tmp_path):
    table = thousand.diagnosis["portfolio"]
    assert table["judge"] == "the paired score on rows that no candidate had seen"
    judged = {c.key: c.gain for c in thousand.candidates}
    first = table["rows"][0]
    assert first["k"] == 1 and first["best"] == pytest.approx(judged[first["chosen"][0]])
    assert first["best"] + first["regret"] == pytest.approx(max(judged.values()))
    assert "Had several been tested" in thousand.html()


def test_an_instrument_gets_its_estimator_beside_the_verdict():
    g = torch.Generator().manual_seed(0)
    u, z = (torch.rand(2, 2000, generator=g) < 0.5).double()
    a = (torch.rand(2000, generator=g) < 0.1 + 0.4 * z + 0.4 * u).long()
    r = (torch.rand(2000, generator=g) < 0.3 * a + 0.6 * u).double()
    log = Decisions(
        context=torch.rand(2000, 2, generator=g), action=a, reward=r,
        propensity=torch.full((2000,), 0.5), propensities=torch.full((2000, 2), 0.5),
        instrument=z, batch_size=[2000],
    ).described(About(actions=("0", "1")))  # fmt: skip
    found = improve_decisions(log, methods="tilt")
    names = {e.name: e for e in found.best.agreement}
    naive, through = names["DR"], names["IV (through the instrument)"]
    assert found.diagnosis["estimators"][0].startswith("IV is added")
    assert through.value < 0.8 * naive.value, "the hidden cause flatters the action"
