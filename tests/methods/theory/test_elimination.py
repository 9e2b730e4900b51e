"""Differences from a reference: the identity, the design by hand, and the best policy found."""

import numpy as np
import pytest
import torch

from surpass.methods.theory.elimination import Trial, perp
from surpass.objectives.policy_differences import (
    designed,
    differences,
    state_laws,
    unlikeness,
)
from surpass.tasks.tabular_play import agreeing_policies, count


def worth(mdp, pi):
    return float(mdp.evaluate(torch.from_numpy(pi)).value)


@pytest.fixture(scope="module")
def problem():
    return agreeing_policies(3, n=5, states=6, actions=3, horizon=4, apart=True)


def test_differences_are_those_of_values(problem):
    mdp, pis = problem
    P, r, d0 = mdp.P.numpy(), mdp.r.numpy(), mdp.d0.numpy()
    law = state_laws(P, d0, pis)
    gain, v = differences(P, r, pis, pis[2], law[2])
    np.testing.assert_allclose(gain, [worth(mdp, p) - worth(mdp, pis[2]) for p in pis], atol=1e-12)
    visits = mdp.occupancy(torch.from_numpy(pis[0])).numpy()
    base = mdp.occupancy(torch.from_numpy(pis[2])).numpy()
    np.testing.assert_allclose(v[0], visits - base, atol=1e-12)
    np.testing.assert_allclose(law[0], visits.sum(-1), atol=1e-12)


def test_policies_that_agree_differ_nowhere_else():
    mdp, pis = agreeing_policies(0)
    P, r, d0 = mdp.P.numpy(), mdp.r.numpy(), mdp.d0.numpy()
    law = state_laws(P, d0, pis)
    assert law[:, 2, -1] == pytest.approx(0.1)
    gain, v = differences(P, r, pis, pis[0], law[0])
    assert np.abs(v[:, :2]).max() == 0 and np.abs(v[:, 2, :-1]).max() == 0
    assert np.abs(v[1:, 2, -1]).max() > 0
    far = unlikeness(P, r, d0, pis)
    np.testing.assert_allclose(np.diag(far), 0, atol=1e-12)
    assert np.abs(far - far.T).max() < 0.1 and far.max() > 0


def test_unlikeness_by_hand():
    """One state, one step: (r . (pi - ref))^2."""
    P, r = np.ones((1, 1, 2, 1)), np.array([[[1.0, 3.0]]])
    pis = np.array([[[[0.5, 0.5]]], [[[0.0, 1.0]]]])
    np.testing.assert_allclose(unlikeness(P, r, np.ones(1), pis), [[0, 1], [1, 0]])


def test_episodes_are_dealt_where_they_are_needed():
    """Two pairs, each visited by one policy: shares go as the size of v, sum v^2 / share is
    (|v_1| + |v_2|)^2 at best."""
    visits = np.eye(2).reshape(2, 1, 1, 2)
    share, norm = designed(np.array([3.0, 1.0]).reshape(1, 1, 1, 2), visits, 2000)
    np.testing.assert_allclose(share, [0.75, 0.25], atol=0.05)
    assert norm == pytest.approx(16.0, rel=0.05)


def test_the_best_policy_is_found_and_the_budget_is_kept(problem):
    mdp, pis = problem
    best = int(np.argmax([worth(mdp, p) for p in pis]))
    for seed in range(3):
        found = perp(1e-3, c=2.0, budget=60_000, seed=seed).solve(Trial(mdp, pis))
        assert found.best == best and found.best in found.survivors
        assert found.spent <= 60_002


def test_noise_of_rewards_is_that_of_means():
    mdp, pis = agreeing_policies(1, n=2)
    rng = np.random.default_rng(0)
    means = [count(mdp, pis[0], 50, rng, 1.0).paid[0].sum() / 50 for _ in range(400)]
    assert np.std(means) == pytest.approx(1 / np.sqrt(50), rel=0.15)
