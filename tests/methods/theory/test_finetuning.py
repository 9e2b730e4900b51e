"""Learning beside a reference policy: bounds hold, data suffice, and the parts by hand."""

import numpy as np
import pytest
import torch

from surpass.methods.theory.finetuning import (
    finetuning_explored,
    finetuning_pessimistic,
    hybrid,
    policy_finetuning,
)
from surpass.objectives.confidence import bernstein, hoeffding, offline_pays, variance
from surpass.tasks.tabular_play import TabularPlay, add, count, sparse_problem, split
from surpass.training.replan import replan


def worth(mdp, pi):
    return float(mdp.evaluate(torch.from_numpy(np.array(pi))).value)


@pytest.fixture(scope="module")
def problem():
    return sparse_problem(1, states=6, actions=3, horizon=5)


def test_bonuses_by_hand():
    n = np.array([[0.0, 4.0]])
    np.testing.assert_allclose(hoeffding(n, 5, 1.0, 0.5), [[5.0, 0.5 * 5 / 2]])
    P, v = np.array([[[0.5, 0.5], [1.0, 0.0]]]), np.array([0.0, 2.0])
    np.testing.assert_allclose(variance(P, v), [[1.0, 0.0]])
    np.testing.assert_allclose(bernstein(P, v, n, 5, 1.0, 0.5), [[0.5 * 6.0, 0.5 * 5 / 4]])


def test_counts_are_those_of_the_occupancy(problem):
    pi = problem.uniform().numpy()
    seen = count(problem, pi, 40_000, np.random.default_rng(0))
    share = seen.n.sum(-1) / 40_000
    assert np.abs(share - problem.occupancy(problem.uniform()).numpy()).max() < 0.01
    assert seen.paid.sum() / 40_000 == pytest.approx(worth(problem, pi), rel=0.03)
    twice = add(seen, seen)
    assert twice.n.sum() == 2 * seen.n.sum()


@pytest.mark.parametrize("seed", range(3))
def test_values_below_are_below_and_values_above_are_above(seed):
    mdp = sparse_problem(seed, states=6, actions=3, horizon=5)
    truth, rng = mdp.solve(), np.random.default_rng(seed)
    pi = mdp.uniform().numpy()
    for episodes in (20, 200):
        low = finetuning_pessimistic(1.0).solve(count(mdp, pi, episodes, rng))
        adv = policy_finetuning(1.0).solve(split(mdp, pi, 3 * episodes, rng))
        for found in (low, adv):
            assert (found.low[:-1] <= truth.v.numpy() + 1e-9).all()
            assert found.low[0, 0] <= worth(mdp, found.pi) + 1e-9
        seen = count(mdp, pi, episodes, rng)
        above = finetuning_explored(1.0, episodes=1).solve(seen)
        assert (above.high[:-1] >= truth.v.numpy() - 1e-9).all()


def test_with_enough_data_all_of_them_are_optimal(problem):
    rng, best = np.random.default_rng(0), problem.solve()
    pi = problem.uniform().numpy()
    low = finetuning_pessimistic(0.01).solve(count(problem, pi, 30_000, rng))
    adv = policy_finetuning(0.01).solve(split(problem, pi, 90_000, rng))
    run = replan(finetuning_explored(0.01, episodes=600), TabularPlay(problem), seed=0)
    both = hybrid(TabularPlay(problem), pi, 2, (400, 3000), 0.01)
    for policy in (low.pi, adv.pi, run.plans[-1].pi, both):
        assert worth(problem, policy) > 0.97 * float(best.value)
    assert np.mean(run.earned[-100:]) > np.mean(run.earned[:50])


def test_a_reference_value_is_never_lost(problem):
    """Where the pieces for single steps are empty, what is left is the pessimistic policy."""
    rng = np.random.default_rng(0)
    pieces = split(problem, problem.solve().pi.numpy(), 900, rng)
    nothing = count(problem, problem.uniform().numpy(), 0, rng)
    bare = pieces._replace(zero=nothing, steps=(nothing,) * 5)
    found, base = policy_finetuning(0.1).solve(bare), finetuning_pessimistic(0.1).solve(pieces.ref)
    np.testing.assert_array_equal(found.pi, base.pi)
    np.testing.assert_array_equal(found.low, base.low)


def test_who_pays():
    assert offline_pays(2.0, 6) and not offline_pays(8.0, 6)
