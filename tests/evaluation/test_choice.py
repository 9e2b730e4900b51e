"""Which estimators are taken, and why: many actions, an instrument, episodes, continuous
actions."""

from __future__ import annotations

import pytest
import torch

import surpass
from surpass.data.records import About, Decisions
from surpass.evaluation.choice import for_decisions, for_episodes, many_actions
from surpass.evaluation.decisions import DEFAULT
from surpass.evaluation.instrumented import by_instrument
from surpass.tasks.control import CartPole
from surpass.tasks.episodes import episodes
from surpass.tasks.many_actions import many_actions as world_of


def test_a_thousand_actions_call_for_clusters_and_the_sentence_says_why():
    world = world_of(1000, seed=1)
    log = world.draw(3000, seed=1)
    chosen = for_decisions(log)
    assert tuple(chosen.forms) == (*DEFAULT, "off-cem") and len(chosen.why) == 1
    assert "1,000 actions each was logged about 3 times" in chosen.why[0]
    assert "32 clusters of them (by their description)" in chosen.why[0]
    assert chosen.forms["off-cem"].biased, "it must not be able to promote"
    target = world.placed(world.target, log)
    forms = {k: chosen.forms[k] for k in ("ips", "off-cem")}
    truth = float(world.truth.value(world.target))
    found = surpass.evaluate(target, log, forms)
    assert abs(found["off-cem"].value - truth) < abs(found["ips"].value - truth)


def test_few_actions_need_nothing_and_unlogged_probabilities_are_said():
    assert many_actions(10, 1000, True, False) == (False, "")
    wanted, why = many_actions(1000, 5000, False, False)
    assert not wanted and why.startswith("OffCEM is left out")


def confounded(n: int, seed: int) -> Decisions:
    """A hidden coin u moves action and reward; z moves the action only. E[r | do(a)] = .3 a + .3"""
    g = torch.Generator().manual_seed(seed)
    u, z = (torch.rand(2, n, generator=g) < 0.5).double()
    x = torch.rand(n, generator=g)
    a = (torch.rand(n, generator=g) < 0.1 + 0.4 * z + 0.4 * u).long()
    r = (torch.rand(n, generator=g) < 0.3 * a + 0.6 * u).double() * 1.0
    p = torch.full((n,), 0.5)
    return Decisions(
        context=x[:, None], action=a, reward=r, propensity=p,
        propensities=torch.full((n, 2), 0.5), instrument=z, batch_size=[n],
    ).described(About(actions=("0", "1")))  # fmt: skip


def test_an_instrument_is_used_and_finds_what_the_others_miss():
    log = confounded(6000, 0)
    found = surpass.evaluate({"one": [0.0, 1.0], "none": [1.0, 0.0]}, log)
    one, none = found["one", "iv-ope"], found["none", "iv-ope"]
    assert one.low < 0.6 < one.high and none.low < 0.3 < none.high
    assert one.high - one.low < 0.2
    naive = found["one", "dr"]
    assert naive.low > 0.6, "the hidden cause makes the action look better than it is"
    assert any(note.startswith("IV is added") for note in found.notes)
    three = log.clone()
    three.instrument = three.instrument * 3
    said = surpass.evaluate([0.0, 1.0], three, "auto").notes
    assert any(note.startswith("IV is left out") for note in said)


def test_an_instrument_without_confounding_agrees_with_the_ordinary_estimate():
    log = confounded(6000, 1)
    log.reward = (log.action == 1).double() * 0.5 + 0.2
    found = by_instrument({"one": [0.0, 1.0]}, log)[0]
    assert found.value == pytest.approx(0.7, abs=0.03)


def test_episodes_call_for_the_abstraction_and_missing_probabilities_for_models():
    g = torch.Generator().manual_seed(0)
    log = episodes(CartPole(), lambda obs: torch.full((len(obs), 2), 0.5), 30, 40, g)
    chosen = for_episodes(log, 0.99)
    assert "star-arp" in chosen.forms and chosen.forms["star-arp"].biased
    assert chosen.why[0].startswith("STAR is added: products of ratios grow")
    log.behavior_logp = None
    chosen = for_episodes(log, 0.99)
    assert set(chosen.forms) == {"fqe", "mwl", "model-based"}
    assert chosen.why[0].startswith("Importance weights are left out")
    log.action = log.action.float()[..., None]
    assert set(for_episodes(log, 0.99).forms) == {"fqe-nets", "model-based"}
    assert set(for_episodes(log, 1.0).forms) == {"model-based"}
