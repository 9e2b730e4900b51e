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


def shop(rows: int, cities: str, seed: int = 0) -> dict[str, np.ndarray]:
    """A log of three actions, of which b pays more, and customers from these cities."""
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 3, rows)
    return {
        "city": np.array(list(cities))[rng.integers(0, len(cities), rows)],
        "age": rng.normal(40.0, 9.0, rows),
        "action": np.array(list("abc"))[action],
        "reward": (rng.uniform(size=rows) < 0.2 + 0.4 * (action == 1)).astype(float),
        "propensity": np.full(rows, 1 / 3),
    }


def both(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([first[k], second[k]]) for k in first}


def test_a_city_that_comes_later_does_not_change_the_rows_that_were_seen(tmp_path):
    import surpass

    path = tmp_path / "journal.json"
    early = shop(400, "pq")
    surpass.improve(early, journal=path)
    result = surpass.improve(both(early, shop(400, "pqrs", seed=1)), journal=path)
    assert result.diagnosis["journal"]["look"] == 1
    assert json.loads(path.read_text())["encoder"]["names"] == [
        "age", "city=p", "city=q", "city=(other)",
    ]  # fmt: skip


def test_an_action_that_comes_later_is_named(tmp_path):
    import surpass

    path = tmp_path / "journal.json"
    early, late = shop(400, "pq"), shop(400, "pq", seed=1)
    surpass.improve(early, journal=path)
    late["action"][0] = "d"
    with pytest.raises(InputError, match=r"other actions \('d' is new\)"):
        surpass.improve(both(early, late), journal=path)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"reference": [0.2, 0.3, 0.5]}, "--reference does not go with --journal"),
        ({"methods": "boosting"}, "--methods does not go with --journal"),
        ({"winsorize": 0.99}, "--winsorize does not go with --journal"),
        ({"propensity_model": "fitted"}, "--propensity-model does not go with --journal"),
        ({"level": 0.7}, "--level is 0.7"),
        ({"looks": 0}, "--looks is 0"),
    ],
)
def test_what_a_look_would_not_heed_is_refused_and_leaves_no_journal(tmp_path, option, said):
    import surpass

    with pytest.raises(InputError, match=said):
        surpass.improve(shop(200, "pq"), journal=tmp_path / "journal.json", **option)
    assert not list(tmp_path.iterdir())


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
