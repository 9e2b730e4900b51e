"""A critic of the best values, and an actor that follows it: by hand, as bounds, and on a lock."""

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.methods.theory.rare_switching import (
    Acting,
    followed,
    lsvi_ucb,
    nora_actor_critic,
    nora_frequent,
)
from surpass.objectives.optimistic_critic import best_values, log_volume
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular_play import TabularPlay, add, count, sparse_problem
from surpass.tasks.worlds import combination_lock, river_swim
from surpass.training.replan import replan


def worth(mdp, pi):
    return float(mdp.evaluate(torch.from_numpy(np.array(pi))).value)


def even(mdp):
    return mdp.uniform().numpy()


def test_values_of_two_steps_by_hand():
    """Step 1 paid 1.5 in three tries: 1.5 / 4, and b / 2 on top; the pair that was never tried has
    b, but no more than what is left to be had. Step 0 was tried once: (0.2 + V) / 2."""
    n, paid = np.zeros((2, 1, 2, 1)), np.zeros((2, 1, 2))
    n[1, 0, 0], paid[1, 0, 0] = 3, 1.5
    n[0, 0, 1], paid[0, 0, 1] = 1, 0.2
    q = best_values(Counts(n, paid, None), 0.5)
    np.testing.assert_allclose(q[1, 0], [1.5 / 4 + 0.25, 0.5])
    np.testing.assert_allclose(q[0, 0], [0.5, (0.2 + 0.625) / 2 + 0.5 / 2**0.5])
    np.testing.assert_allclose(best_values(Counts(n, paid, None), 9.0)[:, 0], [[2, 2], [1, 1]])
    np.testing.assert_allclose(log_volume(n.sum(-1)), np.log([2.0, 4.0]))


def test_a_table_is_the_case_of_a_feature_for_each_pair():
    mdp = sparse_problem(0, states=4, actions=3, horizon=3)
    seen = count(mdp, even(mdp), 30, np.random.default_rng(0))
    phi = np.eye(12).reshape(4, 3, 12)
    np.testing.assert_allclose(best_values(seen, 0.3, phi), best_values(seen, 0.3), atol=1e-10)
    n = seen.n.sum(-1)
    np.testing.assert_allclose(log_volume(n, phi, 0.5), log_volume(n, None, 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_values_are_too_high_with_a_bonus_and_right_with_much_data(seed):
    mdp = sparse_problem(seed, states=5, actions=3, horizon=4)
    best = mdp.solve().q.numpy()
    some = count(mdp, even(mdp), 50, np.random.default_rng(seed))
    assert (best_values(some, 4.0) >= best - 1e-9).all()
    assert (best_values(some, 0.0) < best - 0.05).any()
    pi, many = even(mdp), np.random.default_rng(seed)
    found = best_values(count(mdp, pi, 60_000, many), 0.0)
    seen = count(mdp, pi, 2000, many).n.sum(-1) > 50
    assert np.abs(found - best)[seen].max() < 0.05


def test_the_actor_adds_up_its_critic_until_the_data_double_and_then_starts_over():
    n, paid = np.ones((1, 1, 2, 1)), np.array([[[0.9, 0.1]]])
    first = followed(0.0, eta=2.0)(Counts(n, paid, None))
    np.testing.assert_allclose(first.q, paid / 2)
    np.testing.assert_allclose(first.pi[0, 0, 0], 1 / (1 + np.exp(-2 * 0.4)))
    second = followed(0.0, eta=2.0)(Counts(n, paid, first))
    np.testing.assert_allclose(second.pi[0, 0, 0], 1 / (1 + np.exp(-4 * 0.4)))
    assert second.fits == 1
    more = n + np.array([1.9, 0.0])[None, None, :, None]  # det 4 -> 7.8, not yet doubled
    kept = followed(0.0, eta=2.0)(Counts(more, paid, second))
    assert kept.fits == 1 and kept.q is second.q
    more = n + np.array([2.0, 0.0])[None, None, :, None]
    paid = np.array([[[2.0, 0.1]]])
    after = followed(0.0, eta=2.0)(Counts(more, paid, second))
    assert after.fits == 2
    np.testing.assert_allclose(after.scores, 2.0 * after.q)  # of one episode
    going = followed(0.0, eta=2.0, grow=1.0, reset=False)(Counts(more, paid, second))
    np.testing.assert_allclose(going.scores, second.scores + 2.0 * going.q)


def test_the_rate_of_the_analysis_and_the_greedy_limit():
    mdp = sparse_problem(1, states=4, actions=3, horizon=3)
    seen = count(mdp, even(mdp), 40, np.random.default_rng(1))
    plan = nora_actor_critic(0.05, episodes=500).solve(seen)
    np.testing.assert_allclose(plan.scores, np.sqrt(np.log(3) / 500) / 3 * plan.q)
    greedy, steep = lsvi_ucb(0.05).solve(seen), nora_frequent(0.05, eta=1e9).solve(seen)
    apart = np.sort(steep.q, -1)
    clear = apart[..., -1] - apart[..., -2] > 1e-6
    np.testing.assert_array_equal(greedy.q, steep.q)
    np.testing.assert_allclose(greedy.pi[clear], steep.pi[clear], atol=1e-9)
    assert clear.any()


def test_it_opens_a_lock_with_few_critics_and_not_without_a_bonus():
    mdp, _ = combination_lock(6, 5, generator=torch.Generator().manual_seed(0))
    best = float(mdp.solve().value)
    run = replan(nora_actor_critic(0.05, eta=5.0, episodes=800), TabularPlay(mdp), seed=0)
    last = run.plans[-1]
    assert isinstance(last, Acting) and last.fits < 200
    assert worth(mdp, last.pi) > 0.95 * best == 0.95
    timid = replan(nora_actor_critic(0.0, eta=5.0, episodes=800), TabularPlay(mdp), seed=0)
    assert worth(mdp, timid.plans[-1].pi) < 0.3


def test_a_log_that_covers_the_optimum_stands_in_for_the_bonus():
    mdp, _ = combination_lock(5, 4, generator=torch.Generator().manual_seed(1))
    rng, good = np.random.default_rng(0), mdp.solve().pi.numpy()
    log = add(count(mdp, good, 60, rng), count(mdp, even(mdp), 60, rng))
    before = log.n.copy()
    place = TabularPlay(mdp, log=log)
    run = replan(nora_actor_critic(0.0, eta=5.0, episodes=100), place, seed=0)
    assert worth(mdp, run.plans[-1].pi) > 0.9
    np.testing.assert_array_equal(log.n, before)  # what was handed in is not written to
    assert place.records().n.sum() == before.sum() + 100 * 5


def test_the_river_is_what_it_says():
    mdp = river_swim(3, 4)
    P = [[[1, 0, 0], [0.4, 0.6, 0]], [[1, 0, 0], [0.05, 0.6, 0.35]], [[0, 1, 0], [0, 0.4, 0.6]]]
    torch.testing.assert_close(mdp.P, torch.tensor(P, dtype=torch.float64))
    assert mdp.r.tolist() == [[0.005, 0.0], [0.0, 0.0], [0.0, 1.0]]
    left = torch.tensor([[1.0, 0.0]] * 3)
    assert float(mdp.evaluate(left).value) == pytest.approx(4 * 0.005)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="bonus is at least 0"):
        nora_actor_critic(-0.1)
    with pytest.raises(InputError, match="above it"):
        nora_actor_critic(eta=0.0)
