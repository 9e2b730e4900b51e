"""The geometry of stand-in rewards: exact occupancies and numeric worst cases as oracles."""

from __future__ import annotations

import math

import pytest
import torch

from surpass.methods.ope.goodhart import cautious, drop, pressed, stop_at
from surpass.objectives.occupancies import angle_between, relevant, worst_gain, worst_reward
from surpass.tasks.tabular import TabularMDP


def problem(seed=0, S=5, A=3):
    g = torch.Generator().manual_seed(seed)
    P = torch.distributions.Dirichlet(torch.full((S,), 0.3)).sample((S, A)).double()
    P = P / P.sum(-1, keepdim=True)
    r = torch.randn(S, A, generator=g, dtype=torch.float64)
    return TabularMDP(P, r, torch.full((S,), 1 / S, dtype=torch.float64), 0.9)


@pytest.fixture(autouse=True)
def fixed():
    torch.manual_seed(0)


def test_what_is_dropped_adds_the_same_to_every_policy():
    mdp = problem()
    rest = mdp.r - relevant(mdp.r, mdp.P, 0.9)
    policies = [torch.rand(5, 3).double().softmax(1) for _ in range(3)]
    worth = [float((mdp.occupancy(pi) * rest).sum()) for pi in policies]
    assert worth == pytest.approx([worth[0]] * 3)
    kept = relevant(mdp.r, mdp.P, 0.9)
    assert torch.allclose(relevant(kept, mdp.P, 0.9), kept)
    phi = torch.randn(5).double()  # potential-based shaping changes nothing that matters
    shaped = mdp.r + 0.9 * mdp.P @ phi - phi[:, None]
    assert torch.allclose(relevant(shaped, mdp.P, 0.9), kept)


def test_the_worst_reward_is_the_worst_of_the_cone():
    u, moved = torch.randn(6).double(), torch.randn(6).double()
    for angle in (0.2, 0.9, 1.5):
        found = worst_reward(moved, u, angle)
        value = float(worst_gain(moved, u, angle))
        assert float((moved * found).sum()) == pytest.approx(value)
        assert float(found.norm()) == pytest.approx(1.0)
        assert angle_between(found, u) <= angle + 1e-9
        side = torch.randn(2000, 6).double()
        side = side - (side @ u)[:, None] * u / (u @ u)
        side = side / side.norm(dim=1, keepdim=True)
        cone = math.cos(angle) * u / u.norm() + math.sin(angle) * side
        sampled = float((cone @ moved).min())
        assert value - 1e-9 <= sampled <= value + 0.25 * float(moved.norm())
    assert float(worst_gain(-u, u, 0.5)) == pytest.approx(-float(u.norm()))


def test_stopping_never_loses_and_a_cautious_policy_beats_it_in_the_worst_case():
    mdp = problem(3)
    path = pressed(mdp, mdp.r, steps=12)
    angle = 0.7
    end = stop_at(path, angle)
    assert 0 < end < len(path.occupancy)
    side = relevant(torch.randn(5, 3).double(), mdp.P, 0.9)
    u = path.proxy / path.proxy.norm()
    side = side - (side * u).sum() * u
    true = math.cos(angle) * u + math.sin(angle) * side / side.norm()
    assert bool((path.values(true, 0.9)[: end + 1].diff() > 0).all())
    start = path.occupancy[0]
    best = cautious(mdp, mdp.r, mdp.uniform(), angle, steps=100)
    moved = best - mdp.occupancy(mdp.uniform())
    gain = float(worst_gain(moved, path.proxy, angle))
    others = [worst_gain(path.occupancy[i] - start, path.proxy, angle) for i in (end, -1)]
    assert gain >= max(map(float, others)) - 1e-3 and gain > 0
    assert drop(path, mdp, mdp.r) == pytest.approx(0.0, abs=1e-6)
    plain = mdp.occupancy(mdp.solve().pi)
    assert torch.allclose(cautious(mdp, mdp.r, mdp.uniform(), 0.0, steps=20), plain, atol=1e-6)
