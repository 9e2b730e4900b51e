"""Natural gradients with a log beside: values by hand and exact, and what a log is good for."""

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.methods.theory.hybrid_gradient import Natural, hnpg, hybrid_step
from surpass.objectives.hybrid_values import Both, hybrid_values
from surpass.tasks.hybrid_play import HybridPlay
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular_play import count, sparse_problem
from surpass.tasks.worlds import combination_lock
from surpass.training.replan import replan


def worth(mdp, pi):
    return float(mdp.evaluate(torch.from_numpy(np.array(pi))).value)


def expected(mdp, pi):
    """Counts as they would be after infinitely many episodes of a policy, in shares."""
    d = mdp.occupancy(torch.from_numpy(pi)).numpy()
    P = np.broadcast_to(mdp.P.numpy(), (*d.shape, d.shape[1]))
    r = np.broadcast_to(mdp.r.numpy(), d.shape)
    return Counts(d[..., None] * P, d * r, None), d


def test_one_pair_by_hand():
    """Own returns of 3 in all from 2 episodes, a log that paid 1 in 4: at the last step the values
    meet between 1.5 and 1/4, by the weights, as each counts by its own mean."""
    log = Counts(4 * np.ones((1, 1, 1, 1)), np.ones((1, 1, 1)), None)
    both = Both(2 * np.ones((1, 1, 1)), 3 * np.ones((1, 1, 1)), log)
    pi = np.ones((1, 1, 1))
    for lam, own in ((1.0, 1.0), (3.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        want = (own * 1.5 + lam * 0.25) / (own + lam)
        assert hybrid_values(both, pi, lam, own, ridge=0.0).item() == pytest.approx(want)


@pytest.mark.parametrize("lam, own", [(1.0, 0.0), (0.0, 1.0), (0.7, 1.3)])
def test_with_all_data_values_are_those_of_the_policy_whatever_the_weights(lam, own):
    mdp, rng = sparse_problem(0, states=4, actions=3, horizon=4), np.random.default_rng(0)
    pi = rng.dirichlet(np.ones(3), size=(4, 4))
    log, _ = expected(mdp, mdp.uniform().numpy())
    q = mdp.evaluate(torch.from_numpy(pi)).q.numpy()
    _, d = expected(mdp, pi)
    met = d > 0
    both = Both(d, d * q, log)
    phi = rng.normal(size=(4, 3, 12))  # as many as there are pairs: the class holds everything
    for features in (None, phi):
        f = hybrid_values(both, pi, lam, own, features, 1e-13)
        np.testing.assert_allclose(f[met], q[met], atol=1e-4)


def test_own_episodes_are_counted_with_what_was_earned_from_each_step_on():
    mdp = sparse_problem(1, states=4, actions=2, horizon=3)
    nothing = count(mdp, mdp.uniform().numpy(), 0, np.random.default_rng(0))
    place, pi = HybridPlay(mdp, nothing, 40_000), np.full((3, 4, 2), 0.5)
    place.follow(Natural(pi, pi, pi), np.random.default_rng(0))
    seen, values = place.records(), mdp.evaluate(torch.from_numpy(pi))
    d = mdp.occupancy(torch.from_numpy(pi)).numpy()
    np.testing.assert_allclose(seen.n / 40_000, d, atol=0.01)
    many = seen.n > 1000
    np.testing.assert_allclose((seen.togo / np.maximum(seen.n, 1))[many],
                               values.q.numpy()[many], atol=0.05)  # fmt: skip


def test_a_step_adds_values_to_scores_and_begins_evenly():
    log = Counts(np.zeros((1, 1, 2, 1)), np.zeros((1, 1, 2)), None)
    first = hybrid_step(2.0)(Both(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), log))
    assert first.pi.tolist() == [[[0.5, 0.5]]]
    n, togo = np.array([[[4.0, 4.0]]]), np.array([[[4.0, 2.0]]])
    second = hybrid_step(2.0)(Both(n, togo, log, first))
    assert float(second.pi[0, 0, 0]) == pytest.approx(1 / (1 + np.exp(-2.0 * 0.5)), rel=1e-4)
    third = hybrid_step(2.0)(Both(n, togo, log, second))
    assert float(third.pi[0, 0, 0]) == pytest.approx(1 / (1 + np.exp(-4.0 * 0.5)), rel=1e-4)


def test_a_log_opens_the_lock_and_a_useless_one_does_no_harm():
    mdp, _ = combination_lock(8, 6, generator=torch.Generator().manual_seed(0))
    best, even, rng = mdp.solve().pi.numpy(), mdp.uniform().numpy(), np.random.default_rng(0)
    good = count(mdp, 0.8 * best + 0.2 * even, 300, rng)

    def end(log, **weights):
        run = replan(hnpg(5.0, iterations=40, **weights), HybridPlay(mdp, log), seed=0)
        return worth(mdp, run.plans[-1].pi)

    assert end(good) > 0.9
    nothing = count(mdp, even, 0, rng)
    alone = end(nothing)
    assert alone < 0.3 and end(nothing, lam=0.0) == alone
    assert end(count(mdp, even, 300, rng)) > alone - 0.05


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="eta is above 0"):
        hnpg(0.0)
    with pytest.raises(InputError, match="one is above 0"):
        hnpg(lam=0.0, own=0.0)
