"""Effective horizons by hand, and learning step by step against exact values."""

import math

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.methods.theory.shallow import shallow_iteration, sqirl
from surpass.objectives.effective_horizon import effective_horizon, reachable, shallow_values
from surpass.tasks.random_suffix import SuffixPlay, sticky_room
from surpass.tasks.tabular import TabularMDP
from surpass.training.replan import replan


def lock(length=3, lure=0.6):
    """Action 1 goes on, 0 ends with `lure` at the first step and nothing later; after `length`
    steps of going on 1 is paid. States: 0 .. length - 1 along the lock, then the end."""
    S = length + 1
    P, r = np.zeros((S, 2, S)), np.zeros((length, S, 2))
    for s in range(length):
        P[s, 1, s + 1] = P[s, 0, length] = 1.0
    P[length, :, length] = 1.0
    r[0, 0, 0] = lure
    r[length - 1, length - 1, 1] = 1.0
    return P, r, np.eye(S)[0]


def test_horizons_of_a_lock_by_hand():
    """Going on is worth 1/4 to random actions behind it, 1/2 with one step of iteration and 1 with
    two, beside a lure of 0.6: only the third tells, by 0.4. With a lure of 0.2 the first tells,
    by 0.05, but the third by more: 1 + log2(1 / 0.05^2) against 3 + log2(1 / 0.8^2)."""
    P, r, d0 = lock()
    assert [shallow_values(P, r, k)[0, 0].tolist() for k in (1, 2, 3)] == [
        [0.6, 0.25], [0.6, 0.5], [0.6, 1.0]]  # fmt: skip
    hard = effective_horizon(P, r, d0)
    assert hard.k == 3 and hard.gap == pytest.approx(0.4)
    assert hard.value == pytest.approx(3 + math.log2(1 / 0.4**2))
    easy = effective_horizon(*lock(lure=0.2))
    assert easy.k == 3 and easy.value == pytest.approx(3 + math.log2(1 / 0.8**2))
    assert effective_horizon(*lock(lure=0.2), most=1).value == pytest.approx(
        1 + math.log2(1 / 0.05**2))  # fmt: skip
    assert effective_horizon(*lock(), most=2).value == math.inf


def test_the_last_iterate_is_the_optimum():
    mdp = sticky_room(np.random.default_rng(0))
    r = np.broadcast_to(mdp.r.numpy(), (20, *mdp.r.shape)).copy()
    np.testing.assert_allclose(
        shallow_values(mdp.P.numpy(), r, 20), mdp.solve().q.numpy(), atol=1e-12
    )
    uniform = mdp.evaluate(mdp.uniform()).q.numpy()
    np.testing.assert_allclose(shallow_values(mdp.P.numpy(), r, 1), uniform, atol=1e-12)


def test_reachable_by_hand():
    P, _, d0 = lock()
    only = np.zeros((3, 4, 2), bool)
    only[..., 1] = True
    assert reachable(P, d0, only).tolist() == [
        [True, False, False, False], [False, True, False, False], [False, False, True, False],
    ]  # fmt: skip


@pytest.mark.parametrize("k, worth", [(1, 0.6), (2, 0.6), (3, 1.0)])
def test_learning_a_lock_ends_where_exact_iteration_does(k, worth):
    P, r, d0 = lock()
    mdp = TabularMDP(*(torch.from_numpy(x) for x in (P, r, d0)), horizon=3)
    plans = replan(sqirl(k, horizon=3), SuffixPlay(mdp, 400), seed=0).plans
    assert plans[-1].learned == 3
    assert float(mdp.evaluate(torch.from_numpy(plans[-1].pi)).value) == pytest.approx(worth)


def test_with_many_episodes_values_are_those_of_exact_iteration():
    """The first step's choice is greedy in the exact Q_k."""
    mdp = sticky_room(np.random.default_rng(3))
    r = np.broadcast_to(mdp.r.numpy(), (20, *mdp.r.shape)).copy()
    start = int(mdp.d0.argmax())
    for k in (1, 3):
        play = SuffixPlay(mdp, 60_000)
        play.follow(shallow_iteration(k)(play.records()), np.random.default_rng(0))
        chosen = int(shallow_iteration(k)(play.records()).pi[0, start].argmax())
        exact = shallow_values(mdp.P.numpy(), r, k)[0, start]
        assert exact[chosen] >= exact.max() - 0.02


def test_nothing_is_hard_where_all_is_alike():
    P, r, d0 = lock()
    with pytest.raises(InputError, match="same return"):
        effective_horizon(P, 0.0 * r, d0)
