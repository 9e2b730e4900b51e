"""Weekly looks: honest by construction, refused when the log was changed, and able to promote."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from surpass.data.records import About, Decisions
from surpass.errors import InputError
from surpass.improve import journal
from surpass.improve.journal import boundary, e_value, improve_with_journal, log_wealth


def week(rows: int, seed: int, lift: float) -> Decisions:
    """Uniform logging over 4 actions; action 0 pays `lift` more than the others' 0.3."""
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 4, rows)
    reward = (rng.uniform(size=rows) < 0.3 + lift * (action == 0)).astype(float)
    return Decisions(
        context=torch.from_numpy(rng.normal(size=(rows, 2))),
        action=torch.from_numpy(action),
        reward=torch.from_numpy(reward),
        propensity=torch.full((rows,), 0.25, dtype=torch.float64),
        propensities=torch.full((rows, 4), 0.25, dtype=torch.float64),
        batch_size=[rows],
    ).described(About("weeks", tuple("abcd")))


def growing(weeks: int, lift: float, rows: int = 400) -> list[Decisions]:
    parts = [week(rows, seed, lift) for seed in range(weeks)]
    logs = [torch.cat(parts[: k + 1]) for k in range(weeks)]
    return [log.described(parts[0].about) for log in logs]


def test_the_bets_are_a_martingale_and_their_mean_is_the_e_value():
    x = np.array([1.0, -0.5, 2.0])
    wealth = log_wealth(x, -0.5)
    np.testing.assert_allclose(wealth[0], np.log(1.005 * 0.9975 * 1.01))
    assert e_value(wealth) == pytest.approx(np.exp(wealth).mean())
    fair = np.array([1.0, -1.0])
    grown = [np.exp(log_wealth(np.array([v]), -1.0)) for v in fair]
    np.testing.assert_allclose(np.mean(grown, axis=0), 1.0)


def test_no_bet_can_be_ruined_by_the_worst_score():
    bets = np.minimum(journal.BETS, 0.99 / 40)
    np.testing.assert_allclose(log_wealth(np.array([-40.0]), -40.0), np.log(1 - 40 * bets))


def test_the_boundary_of_eleven_looks_is_the_published_one():
    assert boundary(11) == pytest.approx(1.81, abs=0.03)
    assert boundary(1) == pytest.approx(stats.norm.isf(0.05), abs=0.02)


def test_a_real_gain_is_promoted_after_some_weeks_and_the_first_look_only_freezes(tmp_path):
    path = tmp_path / "journal.json"
    verdicts = []
    for log in growing(5, lift=0.4):
        result = improve_with_journal(log, path)
        verdicts.append(result.verdict)
    assert verdicts[0] == "HOLD" and "first look" not in verdicts
    assert verdicts[-1] == "PROMOTE"
    e = [w.get("e") for w in json.loads(path.read_text())["weeks"]]
    assert e[0] is None and e[-1] >= 20


def test_a_planned_number_of_looks_uses_the_boundary(tmp_path):
    path = tmp_path / "journal.json"
    reasons = [improve_with_journal(log, path, looks=3).reason for log in growing(4, lift=0.4)]
    assert "look 3 of 3" in reasons[-1]
    with pytest.raises(InputError, match="all 3 planned looks"):
        improve_with_journal(growing(5, lift=0.4)[-1], path, looks=3)


def test_without_an_effect_the_wealth_stays_small(tmp_path):
    path = tmp_path / "journal.json"
    for log in growing(4, lift=0.0):
        result = improve_with_journal(log, path)
    assert result.verdict == "HOLD"
    assert json.loads(path.read_text())["weeks"][-1]["e"] < 20


def test_a_changed_log_and_a_log_without_news_are_refused(tmp_path):
    path = tmp_path / "journal.json"
    logs = growing(2, lift=0.4)
    improve_with_journal(logs[0], path)
    with pytest.raises(InputError, match="come back when there are new ones"):
        improve_with_journal(logs[0], path)
    changed = logs[1].clone()
    changed.reward[3] = 1 - changed.reward[3]
    with pytest.raises(InputError, match="not those that"):
        improve_with_journal(changed, path)
    with pytest.raises(InputError, match="begun with level"):
        improve_with_journal(logs[1], path, level=0.1)
    path.write_text("{}")
    with pytest.raises(InputError, match="not a journal"):
        improve_with_journal(logs[1], path)


def test_scores_of_earlier_weeks_come_from_the_policies_frozen_then(tmp_path):
    path = tmp_path / "journal.json"
    logs = growing(3, lift=0.4)
    for log in logs:
        improve_with_journal(log, path)
    stored = json.loads(path.read_text())["weeks"]
    again = [journal._thaw(w) for w in stored]
    context = logs[-1].context[:5]
    rho = torch.full((5, 4), 0.25, dtype=torch.float64)
    tables = [w.candidate.policy(context, rho) for w in again]
    assert not torch.equal(tables[0], tables[1])
    assert [w.learned for w in again] == [400, 800, 1200]
