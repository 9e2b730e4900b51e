"""The mixture of experts: Shapley values by brute force, gaps by hand, and growth."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import pytest
import torch

from surpass.critics.fair_experts import FairExperts, fairness_gap
from surpass.errors import InputError


def test_gaps_by_hand():
    f, y = torch.tensor([0.2, 0.4, 0.9, 0.7]), torch.tensor([0.0, 1, 1, 0])
    z, far = torch.tensor([1, 1, 0, 0]), torch.tensor([3.0, 1.0, 0.0, 0.0])
    assert float(fairness_gap("parity", f, y, z)) == pytest.approx(0.3 - 0.8)
    assert float(fairness_gap("odds", f, y, z)) == pytest.approx(0.5 + 0.5)
    f = torch.tensor([0.2, 0.4, 0.1, 0.7])
    assert float(fairness_gap("burden", f, y, z, far)) == pytest.approx(2.0)
    assert float(fairness_gap("burden", torch.ones(4), y, z, far)) == 0.0
    with pytest.raises(InputError, match="parity, odds or burden"):
        fairness_gap("luck", f, y, z)  # type: ignore[arg-type]


def model(d=4, experts=3):
    torch.manual_seed(0)
    out = FairExperts(d)
    out.w, out.b = torch.randn(experts, d), torch.randn(experts)
    out.V, out.c, out.mean = torch.randn(experts, d), torch.randn(experts), torch.randn(d)
    out.rates = torch.ones(experts)
    return out


def test_shapley_values_equal_the_sum_over_coalitions():
    m, x = model(), torch.randn(1, 4)
    gates = m.gates(x)[0]

    def worth(present):
        at = m.mean.clone()
        at[list(present)] = x[0, list(present)]
        return float((gates * m.logits(at[None])[0]).sum())

    for j in range(4):
        others = [i for i in range(4) if i != j]
        total = 0.0
        for size in range(4):
            weight = factorial(size) * factorial(3 - size) / factorial(4)
            for chosen in combinations(others, size):
                total += weight * (worth((*chosen, j)) - worth(chosen))
        assert float(m.shapley(x)[0, j]) == pytest.approx(total, abs=1e-5)
    assert float(m.shapley(x).sum()) == pytest.approx(worth(range(4)) - worth(()), abs=1e-5)


def test_a_new_expert_begins_with_its_share_of_the_say():
    torch.manual_seed(1)
    x = torch.randn(600, 3)
    y, z = (x[:, 0] > 0).float(), (torch.rand(600) < 0.5).long()
    m = FairExperts(3, penalty=0.0)
    for _ in range(4):
        m.learn(x, y, z)
    assert float(((m.predict(x) >= 0.5) == (y == 1)).float().mean()) > 0.95
    m.grow(x, 1 - y, z)
    assert m.experts == 2
    assert float(m.gates(x)[:, 1].mean()) == pytest.approx(0.5, abs=0.05)
    assert float(m.w[0, 0]) > 0 > float(m.w[1, 0])
    alone = FairExperts(3, most=1)
    alone.grow(x, y, z)
    assert alone.experts == 1


def test_the_penalty_closes_the_gap():
    torch.manual_seed(2)
    z = (torch.rand(2000) < 0.5).long()
    x = torch.randn(2000, 2) + z[:, None] * torch.tensor([1.5, 0.0])
    y = (x[:, 0] + x[:, 1] > 0.7).float()
    gaps = []
    for penalty in (0.0, 5.0):
        m = FairExperts(2, penalty=penalty)
        for _ in range(3):
            m.learn(x, y, z)
        gaps.append(abs(float(fairness_gap("parity", m.predict(x), y, z))))
    assert gaps[1] < 0.4 * gaps[0]
