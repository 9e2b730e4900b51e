"""Comparing policies: portfolios judged by the truth or by held-out halves, and whole
distributions."""

from __future__ import annotations

import json

import pytest
import torch

from surpass.data.logs import HeldLog
from surpass.data.records import About, Decisions
from surpass.data.truth import Truth
from surpass.errors import InputError
from surpass.evaluation.compare import compare, portfolios
from surpass.tasks.tabular import TabularMDP


def world(rows: int) -> tuple[HeldLog, dict[str, list[float]]]:
    """Three actions worth .2, .5, .8 everywhere, logged evenly; policies from bad to good."""
    contexts = torch.eye(4, dtype=torch.float64)
    rewards = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64).expand(4, -1)
    truth = Truth(contexts, rewards, torch.full((4, 3), 1 / 3, dtype=torch.float64))
    log = truth.draw(rows, seed=0, about=About(name="known", actions=("a", "b", "c")))
    policies = {"bad": [0.8, 0.1, 0.1], "even": [1 / 3] * 3, "good": [0.1, 0.1, 0.8],
                "best": [0.0, 0.0, 1.0]}  # fmt: skip
    return HeldLog("known", log, truth), policies


def test_with_a_known_truth_it_judges():
    log, policies = world(2000)
    found = compare(policies, log, ["ips", "dr"])
    assert found.judge == "the truth" and found.logging == pytest.approx(0.5)
    assert found.judged["best"] == pytest.approx(0.8) and found.judged["bad"] == pytest.approx(0.29)
    by = {(r.estimator, r.k): r for r in found.rows}
    assert by["dr", 1].chosen == ("best",) and by["dr", 1].regret == 0.0
    assert by["dr", 2].chosen == ("best", "good")
    spread = torch.tensor([0.8, 0.71]).std().item()
    assert by["dr", 2].sharpe == pytest.approx(0.3 / spread, rel=1e-4)
    assert by["dr", 4].violations == 0.25
    assert found.ranks["dr"]["rank"] == pytest.approx(1.0)


def test_without_it_the_other_half_does():
    log, policies = world(4000)
    found = compare(policies, log.held, ["ips", "dr", "dm"])
    assert found.judge.startswith("dr on the other half")
    for name, value in {"bad": 0.29, "even": 0.5, "good": 0.71, "best": 0.8}.items():
        assert found.judged[name] == pytest.approx(value, abs=0.06)
    top = next(r for r in found.rows if r.estimator == "dm" and r.k == 1)
    assert top.chosen == ("best",) and abs(top.regret) < 0.05


def test_an_estimator_that_one_half_cannot_answer_is_left_out():
    """The third action was logged once: in one half the policy that takes it has no weight at all,
    and dividing by the mean weight says nothing."""
    action = torch.arange(40) % 2
    action[7] = 2
    third = torch.full((40, 3), 1 / 3).double()
    log = Decisions(
        context=torch.rand(40, 1), action=action, reward=(torch.arange(40) % 3 == 0).double(),
        propensity=third[:, 0], propensities=third, batch_size=[40],
    ).described(About(actions=("a", "b", "c")))  # fmt: skip
    policies = {"third": [0.0, 0.0, 1.0], "even": [1 / 3] * 3}
    found = compare(policies, log, ["ips", "snips"])
    assert {r.estimator for r in found.rows} == set(found.ranks) == {"ips"}
    assert len(found.tables()) == 2


def test_distribution_of_rewards_follows_the_policy():
    log, policies = world(4000)
    risks = {r.policy: r for r in compare(policies, log, ["ips"]).risks}
    assert risks["best"].mean == pytest.approx(0.8, abs=0.04)
    assert risks["best"].below == pytest.approx(0.2, abs=0.04)  # the chance of a reward of 0
    assert risks["bad"].below == pytest.approx(0.71, abs=0.04)
    assert risks["best"].cvar == 0.0 and risks["best"].median == 1.0


def test_episodes_are_halved_whole_and_it_is_all_json():
    g = torch.Generator().manual_seed(0)
    P = torch.softmax(torch.randn(3, 2, 3, generator=g, dtype=torch.float64), -1)
    mdp = TabularMDP(P, torch.tensor([[0.0, 1.0]] * 3), torch.ones(3) / 3, 1.0, 4)
    log = mdp.transitions(mdp.uniform(), 400, generator=g)
    always = {str(p): (lambda obs, p=p: torch.tensor([1 - p, p]).expand(len(obs), 2).double())
              for p in (0.2, 0.5, 0.8)}  # fmt: skip
    found = compare(always, log, ["pdis", "drt"], gamma=1.0)
    assert found.judge.startswith("drt on the other half")
    assert found.judged["0.8"] == pytest.approx(3.2, abs=0.3)
    assert found.risks[0].mean == pytest.approx(0.8, abs=0.4)
    told = json.loads(json.dumps(found.to_json()))
    assert told["per"] == "episode" and len(told["comparison"]["portfolios"]) == 6


def test_the_table_of_one_estimator_by_hand():
    rows, ranks = portfolios({"e": {"a": 3.0, "b": 2.0, "c": 1.0}}, {"a": 1.0, "b": 4.0, "c": 2.0},
                              1.5)  # fmt: skip
    assert [r.best for r in rows] == [1.0, 4.0, 4.0] and rows[0].regret == 3.0
    assert rows[1].sharpe == pytest.approx(2.5 / torch.tensor([1.0, 4.0]).std().item())
    assert ranks["e"]["type_1"] == 1.0 and ranks["e"]["type_2"] == 0.5
    with pytest.raises(InputError, match="at least two"):
        compare({"a": [1.0]}, None)
