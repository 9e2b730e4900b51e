"""Answers to a rule by hand, losses in their limits, and a rule that learns what moving does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surpass.methods.ope.strategic import cserm, plain_rule
from surpass.objectives.strategic import (
    hinge,
    log_density,
    respond,
    respond_smoothly,
    soft_labels,
    strategic_hinge,
    traced_back,
)
from surpass.tasks.strategic import clusters

W, B = torch.tensor([3.0, 4.0]).double(), torch.tensor(-5.0).double()  # the line is 1 away from 0


def test_people_move_to_the_nearest_accepted_point_within_reach_only():
    x = torch.tensor([[0.0, 0.0], [-3.0, -4.0], [3.0, 4.0]]).double()
    after, moved = respond(x, W, B, reach=1.5)
    np.testing.assert_allclose(after, [[0.6, 0.8], [-3, -4], [3, 4]], atol=1e-12)
    assert moved.tolist() == [True, False, False]


def test_the_smooth_answer_is_the_exact_one_away_from_its_edges():
    x = torch.tensor([[0.0, 0.0], [-3.0, -4.0], [3.0, 4.0]]).double()
    smooth, exact = respond_smoothly(x, W, B, reach=1.5, tau=60.0), respond(x, W, B, reach=1.5)
    np.testing.assert_allclose(smooth.x, exact[0], atol=1e-6)
    np.testing.assert_allclose(smooth.moved, exact[1].double(), atol=1e-6)


def test_labels_change_for_movers_only():
    y = torch.tensor([-1.0, -1.0]).double()
    found = soft_labels(y, torch.tensor([0.0, 1.0]), torch.tensor([50.0, 50.0]).double())
    assert found.tolist() == pytest.approx([-1.0, 1.0])


def test_without_reach_the_strategic_hinge_is_the_hinge():
    g = torch.Generator().manual_seed(0)
    y = torch.tensor([1.0, -1.0, 1.0]).double()
    f = torch.randn(3, generator=g, dtype=torch.float64)
    torch.testing.assert_close(strategic_hinge(y, f, W, 0.0), hinge(y, f))
    # with it, the boundary is `reach` further away: w'x + b + reach |w|
    torch.testing.assert_close(strategic_hinge(y, f, W, 0.2), hinge(y, f + 1.0))


def test_a_density_of_one_point_and_of_weights():
    at = torch.tensor([[1.0, 0.0]]).double()
    one = log_density(at, torch.zeros(1, 2).double(), 0.5)
    assert float(one) == pytest.approx(-2.0)
    data = torch.tensor([[0.0, 0.0], [9.0, 0.0]]).double()
    both = log_density(at, data, 0.5, torch.tensor([3.0, 1.0]).double())
    assert float(both) == pytest.approx(-2.0 + np.log(0.75))


def test_who_stands_on_the_boundary_came_from_where_people_are():
    w = torch.tensor([1.0, 0.0]).double()
    home = torch.tensor([[-1.0, 0.0]]).double()
    back = traced_back(torch.zeros(1, 2).double(), w, 2.0, lambda p: log_density(p, home, 0.05), 41)
    np.testing.assert_allclose(back, home, atol=0.02)


def test_fixed_labels_harm_beyond_the_island_and_learned_outcomes_do_not():
    people = clusters("island")
    x, y = people.labeled(500, np.random.default_rng(0))
    fixed = plain_rule(x, y, people.reach)
    ours = cserm(rounds=2, clean=300, explore=0.0, seed=0).solve(people)
    rng = np.random.default_rng(1)
    assert people.accuracy(fixed.w, fixed.b, 2000, rng) < 65
    assert people.accuracy(ours.w, ours.b, 2000, rng) > 90
    assert len(ours.rounds) == 2
