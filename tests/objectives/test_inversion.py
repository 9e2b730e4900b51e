"""Models out of values: exact kernels, what is determined and what is not, and bad tables."""

from __future__ import annotations

import pytest
import torch

from surpass.errors import InputError
from surpass.objectives.inversion import Beliefs, least_norm, nearest_next, on_simplex
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import four_rooms, random_mdp

F64 = torch.float64


def rewards(goals, S, seed=0):
    return torch.rand(goals, S, generator=torch.Generator().manual_seed(seed), dtype=F64)


def believed(mdp, reward, done=None):
    """The optimal values of every goal, solved one by one."""
    q, v = [], []
    for g, r in enumerate(reward):
        end = None if done is None else done[g]
        solved = TabularMDP(mdp.P, mdp.P @ r, mdp.d0, mdp.gamma, None, end).solve()
        # an ended state still has values toward the goal: those of acting on from it
        onward = torch.where(end, 0.0, solved.v) if end is not None else solved.v
        q.append(mdp.P @ (r + mdp.gamma * onward))
        v.append(q[-1].amax(-1))
    return Beliefs(torch.stack(q, -1), reward, mdp.gamma, done, torch.stack(v, -1))


def test_a_kernel_by_hand():
    """Two states, one action; arriving in the second is worth 3, in the first 1, so Q = 2.5 is a
    chance of three quarters."""
    seen = Beliefs(torch.tensor([[[2.5]], [[1.0]]]), torch.tensor([[1.0, 3.0]]), 0.0)
    want = [[0.25, 0.75], [1.0, 0.0]]
    torch.testing.assert_close(on_simplex()(seen)[:, 0], torch.tensor(want, dtype=F64))
    assert nearest_next()(seen)[:, 0].argmax(-1).tolist() == [1, 0]


def test_as_many_goals_as_states_determine_any_kernel():
    mdp = random_mdp(6, 3, gamma=0.8, generator=torch.Generator().manual_seed(1))
    seen = believed(mdp, rewards(6, 6))
    assert (least_norm()(seen) - mdp.P).abs().max() < 1e-8
    assert (on_simplex()(seen) - mdp.P).abs().max() < 1e-6
    # the sum is one more equation, so one goal fewer is enough on the simplex only
    fewer = seen.goals(slice(0, 5))
    assert (on_simplex()(fewer) - mdp.P).abs().max() < 1e-6
    assert (least_norm()(fewer) - mdp.P).abs().max() > 1e-3


def test_least_norm_is_where_gradient_descent_ends():
    mdp = random_mdp(5, 2, gamma=0.8, generator=torch.Generator().manual_seed(2))
    seen, g = believed(mdp, rewards(2, 5)), torch.Generator().manual_seed(3)
    p0 = torch.rand(5, generator=g, dtype=F64)
    m, p = seen.arrived, p0.expand(5, 2, 5).clone()
    rate = 1 / torch.linalg.matrix_norm(m, 2).square()
    for _ in range(30_000):
        p -= rate * (p @ m.T - seen.q) @ m
    torch.testing.assert_close(least_norm(p0)(seen), p, atol=1e-6, rtol=0)


def test_what_is_not_determined_still_explains_the_values():
    mdp = random_mdp(6, 2, gamma=0.8, generator=torch.Generator().manual_seed(4))
    seen = believed(mdp, rewards(2, 6))
    for found in (least_norm()(seen), on_simplex()(seen)):
        assert (found @ seen.arrived.T - seen.q).abs().max() < 1e-6
        assert (found - mdp.P).abs().max() > 1e-2
    assert (on_simplex()(seen) >= 0).all()


def test_one_goal_is_enough_for_a_deterministic_world():
    mdp = four_rooms("plain")
    seen = believed(mdp, rewards(1, mdp.n_states))
    assert torch.equal(nearest_next()(seen), mdp.P)
    # a goal that is reached equally soon from many cells does not tell them apart
    flat = torch.zeros(1, mdp.n_states, dtype=F64)
    flat[0, 0] = 1.0
    assert not torch.equal(nearest_next()(believed(mdp, flat)), mdp.P)


def test_four_goals_are_enough_where_neighbors_are_known():
    mdp = four_rooms("windy")
    near = (mdp.P.sum(1) > 0) | torch.eye(mdp.n_states, dtype=torch.bool)
    seen = believed(mdp, rewards(4, mdp.n_states))
    error = (on_simplex(support=near)(seen) - mdp.P).square().mean()
    assert float(error) < 1e-10
    assert float((on_simplex()(seen.goals([0])) - mdp.P).square().mean()) > 1e-4


def test_goals_that_end_are_told_by_their_ends():
    mdp = four_rooms("teleport", gamma=0.9)
    eye = torch.eye(mdp.n_states, dtype=F64)
    seen = believed(mdp, eye, eye.bool())
    assert float((on_simplex()(seen) - mdp.P).square().mean()) < 1e-8


def test_four_rooms_have_68_cells_and_are_what_they_say():
    plain, windy, jump = (four_rooms(k) for k in ("plain", "windy", "teleport"))
    assert plain.n_states == windy.n_states == jump.n_states == 68
    assert ((plain.P == 0) | (plain.P == 1)).all()
    assert set(windy.P[windy.P > 0].tolist()) == {0.25, 0.5, 0.75}
    apart = (jump.P != plain.P).any(-1).any(-1)
    assert int(apart.sum()) == 4
    assert torch.equal(jump.P[apart].amax((1, 2)), torch.full((4,), 1 / 16, dtype=F64))
    with pytest.raises(InputError, match="plain, windy or teleport"):
        four_rooms("icy")


def test_bad_tables_are_named():
    reward = torch.ones(2, 3)
    with pytest.raises(InputError, match=r"\[3, A, 2\] by the rewards, not \[2, 4, 3\]"):
        on_simplex()(Beliefs(torch.zeros(2, 4, 3), reward, 0.9))
    q = torch.zeros(3, 4, 2)
    with pytest.raises(InputError, match="state 1 leads nowhere"):
        nearest_next(support=torch.diag(torch.tensor([1, 0, 1])))(Beliefs(q, reward, 0.9))
    with pytest.raises(InputError, match="support is"):
        on_simplex(support=torch.ones(2, 2))(Beliefs(q, reward, 0.9))
    q[1, 2, 0] = torch.nan
    with pytest.raises(InputError, match=r"not finite at \[1, 2, 0\]"):
        least_norm()(Beliefs(q, reward, 0.9))
