"""The checks before a verdict: quiet on good logs, loud on the fault each is made for."""

import numpy as np
import pytest

from surpass.improve import checks

RUNS = 60


def world(seed: int, n: int = 3000, k: int = 4):
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(n, 3))
    logits = context @ rng.normal(size=(3, k)) * 0.5
    mu = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    action = (mu.cumsum(1) > rng.uniform(size=(n, 1))).argmax(1)
    return rng, context, mu, action


def test_true_propensities_rarely_alarm_and_wrong_ones_nearly_always():
    quiet = loud = 0
    for seed in range(RUNS):
        _, context, mu, action = world(seed)
        quiet += not checks.propensities_full(action, mu, context).passed
        wrong = mu**0.6 / (mu**0.6).sum(1, keepdims=True)
        loud += not checks.propensities_full(action, wrong, context).passed
    assert quiet <= 2  # a rate of 0.1 % each
    assert loud >= 0.95 * RUNS


def test_logged_propensities_alone_are_tested_with_a_model_of_the_action():
    quiet = loud = 0
    for seed in range(RUNS):
        _, context, mu, action = world(seed)
        p = mu[np.arange(len(action)), action]
        quiet += not checks.propensities_logged(action, p, mu, context).passed
        loud += not checks.propensities_logged(action, 0.8 * p, mu, context).passed
    assert quiet <= 3
    assert loud >= 0.95 * RUNS


def test_the_statistic_is_hotelling_for_two_actions_without_context():
    action = np.array([0] * 60 + [1] * 40)
    mu = np.full((100, 2), 0.5)
    check = checks.propensities_full(action, mu, np.zeros((100, 0)))
    # h = +-1/2 in one direction: s = 10, S = 100/4, s^2/S = 4
    assert check.statistic == pytest.approx(0.0455, abs=1e-4)


def test_sticky_users_become_groups_and_fair_repeats_do_not():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 10)
    context = rng.normal(size=(300, 2))[users]
    mu = np.full((3000, 4), 0.25)
    sticky = rng.integers(0, 4, 300)[users]
    check, group = checks.duplicates(context, sticky, mu[:, 0], mu)
    assert (
        group is not None and check.statistic is not None and check.statistic == pytest.approx(90.0)
    )
    assert len(np.unique(group)) == 300
    fair = rng.integers(0, 4, 3000)
    check, group = checks.duplicates(context, fair, mu[:, 0], mu)
    assert group is None and check.statistic is not None and abs(check.statistic) < 3.1


def test_every_row_twice_is_found_from_logged_propensities_alone():
    _rng, context, mu, action = world(1, n=1000)
    p = mu[np.arange(1000), action]
    twice = np.repeat(np.arange(1000), 2)
    check, group = checks.duplicates(context[twice], action[twice], p[twice])
    assert group is not None and check.details["repeated"] == 1.0


def test_effective_sample_size_of_equal_weights_is_their_number():
    assert checks.effective_sample_size(np.full(80, 3.0)).statistic == pytest.approx(80)
    one = np.zeros(80)
    one[3] = 5.0
    check = checks.effective_sample_size(one)
    assert check.statistic == pytest.approx(1) and not check.passed


def test_serial_dependence_is_found_in_a_random_walk_and_not_in_noise():
    rng = np.random.default_rng(0)
    alarms = sum(
        (c := checks.serial_dependence(rng.normal(size=900), 0.05)).statistic is not None
        and c.statistic < 0.01
        for _ in range(200)
    )
    assert alarms <= 8  # 1 % each
    walk = np.cumsum(rng.normal(size=900))
    walk -= walk.mean() - 0.01
    check = checks.serial_dependence(walk, 0.05)
    assert check.statistic is not None and check.statistic < 1e-6 and not check.passed


def test_a_gain_that_fades_to_nothing_is_held_and_a_steady_one_is_not():
    rng = np.random.default_rng(0)
    time = np.arange(2000.0)
    fading = rng.normal(size=2000) + np.linspace(1.0, -0.6, 2000)
    assert not checks.fading_gain(fading, time).passed
    assert checks.fading_gain(rng.normal(size=2000) + 0.2, time).passed
    still_good = rng.normal(size=2000) + np.linspace(2.0, 1.0, 2000)
    assert checks.fading_gain(still_good, time).passed


def test_support_needs_the_worst_case_above_one_percent():
    assert checks.support(0.005, None).passed
    assert not checks.support(0.05, None).passed
    assert checks.support(0.05, True).passed
    assert not checks.support(0.05, False, "action 3").passed
    assert "action 3" in checks.support(0.05, False, "action 3").reason


def test_rare_actions_are_merged_before_testing():
    rng = np.random.default_rng(0)
    mu = np.full((2000, 50), 0.01 / 49)
    mu[:, 0] = 0.99
    action = (mu.cumsum(1) > rng.uniform(size=(2000, 1))).argmax(1)
    merged, number = checks._merged(mu, action)
    np.testing.assert_allclose(merged, np.tile([0.99, 0.01], (2000, 1)))
    assert (number == (action > 0)).all()
