"""The clone as a reference: budgets, bounds, both ends of the penalty, rewards of preferences."""

import numpy as np
import pytest
import torch

from surpass.methods.theory.demonstrations import demo_reg_rl
from surpass.objectives.demonstrations import budgeted, clone_of, rewards_of_preferences
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular_play import TabularPlay, count, sparse_problem
from surpass.training.replan import replan


@pytest.fixture(scope="module")
def problem():
    return sparse_problem(1, states=6, actions=3, horizon=5)


def worth(mdp, pi):
    return float(mdp.evaluate(torch.from_numpy(np.array(pi))).value)


def test_a_clone_counts_and_smooths():
    n = np.zeros((1, 2, 2, 2))
    n[0, 0, 1, 0] = 3
    np.testing.assert_allclose(clone_of(Counts(n, n.sum(-1), None))[0], [[0.2, 0.8], [0.5, 0.5]])


def test_the_penalty_grows_with_demonstrations(problem):
    rng, pi = np.random.default_rng(0), problem.uniform().numpy()
    few, many = (budgeted(0.1, count(problem, pi, n, rng)) for n in (10, 100))
    assert budgeted(0.1, count(problem, pi, 0, rng)) == 0
    assert many / few == pytest.approx(10 * np.log(10) / np.log(100))
    assert few == pytest.approx(0.1 * 10 / (3 * 6 * 3 * 5 * np.log(10)))


def test_with_many_counts_it_is_the_exact_regularized_optimum(problem):
    rng, lam = np.random.default_rng(0), 0.3
    clone = clone_of(count(problem, problem.solve().pi.numpy(), 20, rng))
    seen = count(problem, problem.uniform().numpy(), 60_000, rng)
    found = demo_reg_rl(clone, lam, 1e-4).solve(seen)
    truth = problem.solve_soft(lam, torch.from_numpy(clone))
    assert worth(problem, found.pi) == pytest.approx(worth(problem, truth.pi), rel=0.02)
    at = seen.n.sum((2, 3)) > 500
    assert np.abs(found.pi - truth.pi.numpy())[at].max() < 0.1


def test_its_gap_covers_what_it_loses(problem):
    lam = 0.3
    play = TabularPlay(problem)
    plans = replan(demo_reg_rl(None, lam, 0.3, episodes=300), play, seed=0).plans
    best = problem.solve_soft(lam, problem.uniform()).value

    def regularized(pi):
        pi = torch.from_numpy(pi)
        cost = torch.where(pi > 0, pi * (pi * problem.n_actions).log(), 0.0).sum(-1)
        return problem.evaluate(pi, -lam * cost).value

    for plan in plans[::50]:
        assert float(best - regularized(plan.pi)) <= plan.gap[0] + 1e-9
    assert plans[-1].gap[0] <= plans[0].gap[0]


def test_what_is_played_leaves_the_policy_at_one_step_at_most(problem):
    plan = demo_reg_rl(None, 0.3, 0.1).solve(count(problem, problem.uniform().numpy(), 5,
                                                   np.random.default_rng(0)))  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = np.abs(plan.behavior(rng) - plan.pi).max((1, 2)) > 0
        assert moved.sum() <= 1


def test_a_good_clone_and_a_large_penalty_stay_with_the_expert(problem):
    rng, best = np.random.default_rng(0), problem.solve()
    clone = clone_of(count(problem, best.pi.numpy(), 2000, rng))
    plans = replan(demo_reg_rl(clone, 5.0, 0.01, episodes=40), TabularPlay(problem), seed=0).plans
    assert worth(problem, plans[-1].pi) > 0.95 * float(best.value)


def test_rewards_come_back_in_order():
    rng = np.random.default_rng(0)
    truth = np.array([[0.0, 1.0], [0.3, 0.6]])
    first, second = rng.integers(2, size=(2, 4000, 3, 2))
    gain = sum(truth[first[:, h, 0], first[:, h, 1]] - truth[second[:, h, 0], second[:, h, 1]]
               for h in range(3))  # fmt: skip
    better = (rng.random(4000) < 1 / (1 + np.exp(-4 * gain))).astype(int)
    found = rewards_of_preferences(first, second, better, 2, 2)
    assert np.abs(found - truth).max() < 0.1
