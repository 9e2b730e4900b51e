"""Reachability by hand, and on a chain whose largest future violation is known."""

import math

import pytest
import torch

from surpass.objectives.reachability import feasible, least_violation, reach
from surpass.objectives.rows import Rows
from surpass.objectives.weights import over_value
from surpass.parts import run


class Table(torch.nn.Module):
    """Two members' values by the first observation, whatever the action."""

    def __init__(self, *members):
        super().__init__()
        self.members = torch.tensor(members)

    def forward(self, obs, action=None):
        return self.members[:, obs[:, 0].long()]

    def fit(self, obs, action, y, huber):
        return (self(obs, action) - y).square()


def rows(**columns):
    base = {"obs": torch.arange(3.0)[:, None], "action": torch.zeros(3, 1),
            "next_obs": torch.tensor([[1.0], [2.0], [0.0]]), "terminated": torch.zeros(3),
            "reward": torch.zeros(3), "cost": torch.tensor([0.0, 0.0, 2.0])}  # fmt: skip
    return Rows({**base, **columns})


def test_the_backup_is_the_largest_violation_still_to_come():
    """V = (-1, 0.5, 30): from 0 the next is worse than h, from 1 too, in 2 h = 25 is the worst
    (its V(s') = -1); where the episode ends, h alone."""
    nets = {"q_h": Table([0.0, 0.0, 0.0]), "v_h": Table([-1.0, 0.5, 30.0])}
    g = 0.9
    found, _ = run(reach(g), (nets, rows()))
    expected = [-0.1 + g * 0.5, -0.1 + g * 30.0, 0.1 * 25 + g * 25]
    assert found.sqrt().tolist() == pytest.approx([abs(y) for y in expected], rel=1e-5)
    ended, _ = run(reach(g), (nets, rows(terminated=torch.ones(3))))
    assert ended.tolist() == pytest.approx([1.0, 1.0, 625.0])


def test_the_fixed_point_on_a_chain_is_feasible_exactly_where_no_violation_lies_ahead():
    """States 0 -> 1 -> 2 (violated, then over) and 3 -> 3 forever, gamma near 1."""
    h, gamma = torch.tensor([-1.0, -1.0, 25.0, -1.0]), 0.99
    following = torch.tensor([1, 2, 2, 3])
    v = torch.zeros(4)
    for _ in range(3_000):
        after = torch.maximum(h, v[following])
        v = torch.where(torch.arange(4) == 2, h, (1 - gamma) * h + gamma * after)
    assert (v <= 0).tolist() == [False, False, False, True]
    assert float(v[1]) == pytest.approx(0.99 * 25 - 0.01, rel=1e-4)
    nets = {"q_h": Table(v.tolist()), "v_h": Table(v.tolist())}
    seen = rows(obs=torch.tensor([[0.0], [1.0], [3.0]]),
                next_obs=torch.tensor([[1.0], [2.0], [3.0]]), cost=torch.zeros(3))  # fmt: skip
    loss, _ = run(reach(gamma), (nets, seen))
    assert float(loss.max()) == pytest.approx(0.0, abs=1e-6)


def test_the_reversed_expectile_nears_the_least():
    """Over actions worth -1 (three of four) and 9 the 0.95-reversed expectile is close to -1."""
    values = torch.tensor([-1.0, -1.0, -1.0, 9.0])
    v = torch.zeros(1, requires_grad=True)

    class Value:
        def __call__(self, obs):
            return v.expand(1, 4)

    nets = {"q_h_target": lambda obs, action: torch.stack([values - 1, values]), "v_h": Value()}
    seen = Rows({"obs": torch.zeros(4, 1), "action": torch.zeros(4, 1)})
    for _ in range(400):
        loss = least_violation(0.95)(nets, seen).mean()  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(loss, v)
        v = (v - 0.5 * slope).detach().requires_grad_()
    share = 3 * 0.95 / (3 * 0.95 + 0.05)
    assert v.item() == pytest.approx(-share + 9 * (1 - share), abs=1e-3)  # max over the members


def test_weights_from_feasible_and_from_infeasible_states():
    nets = {
        "q_h_target": Table([-2.0, 0.5, 4.0], [-1.0, 0.2, 3.0]),
        "v_h": Table([-1.0, -1.0, 4.2]),
        "q_target": Table([1.0, 1.0, 1.0]), "v": Table([0.5, 0.5, 0.5]),
    }  # fmt: skip
    weight = feasible(over_value("q_target"), 3.0, 5.0)(nets, rows())  # type: ignore[arg-type]
    assert weight.tolist() == pytest.approx([math.exp(1.5), 0.0, math.exp(1.0)], rel=1e-4)
    capped = feasible(over_value("q_target"), 30.0, 5.0, (100.0, 2.0))(nets, rows())  # type: ignore
    assert capped.tolist() == pytest.approx([100.0, 0.0, 2.0])
