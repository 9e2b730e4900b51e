"""The worst of several models: by hand, and against every policy of a small problem."""

import itertools

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.methods.theory.worst_cases import iwocs, worths
from surpass.objectives.worst_models import greedy_on_least, rectangular_backup
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.windy_grid import windy_grids


def bandit(r):
    """One decision in state 0, then nothing."""
    P = torch.zeros(2, len(r), 2).double()
    P[..., 1] = 1.0
    pays = torch.tensor([r, [0.0] * len(r)]).double()
    return TabularMDP(P, pays, torch.tensor([1.0, 0.0]), 0.9, terminal=torch.tensor([False, True]))


def test_rounds_by_hand():
    """Model 0 likes arm 0, which model 1 punishes; arm 1 is punished by model 2; arm 2 is safe.
    Solving 0, 1 and 2 in turn ends at the safe arm, at 0.4, and model 3, never worst, is left."""
    models = [bandit(r) for r in ([1.0, 0.9, 0.5], [0.0, 0.9, 0.5], [1.0, 0.1, 0.4], [1, 1, 1.0])]
    found = iwocs().solve(models)
    assert found.solved == [0, 1, 2]
    assert found.least == pytest.approx([0.0, 0.1, 0.4])
    assert found.value == pytest.approx(0.4)
    assert found.pi[0].tolist() == [0.0, 0.0, 1.0]


def test_ties_go_to_the_first_action():
    q = torch.tensor([[[1.0, 2.0, 2.0]], [[3.0, 1.5, 1.5]]]).double()
    assert greedy_on_least(q).tolist() == [[0.0, 1.0, 0.0]]


def test_no_deterministic_policy_of_a_small_grid_is_better_by_much():
    """Every deterministic policy of a grid of four cells, two of which decide."""
    models = windy_grids(np.random.default_rng(1), side=2, traps=1)
    found = iwocs().solve(models)
    best = -np.inf
    for choice in itertools.product(range(4), repeat=4):
        pi = torch.nn.functional.one_hot(torch.tensor(choice), 4).double()
        best = max(best, float(worths(models, pi).min()))
    assert found.value == pytest.approx(best, abs=1e-9)
    assert float(worths(models, found.pi).min()) == pytest.approx(found.value)


def test_the_solved_models_bound_the_rectangular_value():
    """min_j max_a Q_j is never below what the rectangular set leaves, in no state."""
    models = windy_grids(np.random.default_rng(0))
    found = iwocs().solve(models)
    P, r = (torch.stack([getattr(m, name) for m in models]) for name in ("P", "r"))
    v = torch.zeros(36).double()
    for _ in range(600):
        v = rectangular_backup(P, r, v, 0.95).max(-1).values
    upper = torch.stack([models[j].solve().q for j in found.solved]).min(0).values.max(-1).values
    assert (v <= upper + 1e-9).all()


def test_wind_by_hand():
    """In a row of the grid, east is action 0; a wind from the west doubles the step."""
    calm, *windy = windy_grids(np.random.default_rng(0), side=4, traps=0, strengths=(0.3,))
    assert float(calm.P[0, 0, 1]) == 1.0
    assert windy[0].P[0, 0, 1:3].tolist() == pytest.approx([0.7, 0.3])
    assert float(windy[0].P[2, 0, 3]) == pytest.approx(1.0)  # the border holds
    assert float(windy[1].r[11, 1]) == pytest.approx(0.98)


def test_bad_input():
    with pytest.raises(InputError, match="the nominal one"):
        iwocs(nominal=3).solve([bandit([1.0, 0.0])])
    with pytest.raises(InputError, match="no horizon"):
        iwocs().solve([TabularMDP(torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1), 1.0, 3)])
