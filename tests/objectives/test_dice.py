"""The dual's terms against their definition, and its minimum on a small problem."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surpass.objectives.dice import chi2_conjugate, chi2_dice, forward_residual
from surpass.objectives.rows import Rows


class Table(torch.nn.Module):
    """Values by state number, [n, B]."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values, dtype=torch.float32))

    def forward(self, obs):
        return self.values[:, obs[:, 0].long()]


class Nets(dict):
    __getattr__ = dict.__getitem__


@given(st.floats(-6, 6))
def test_the_conjugate_is_the_highest_line_under_the_divergence(y):
    """f*(y) = max over w >= 0 of y w - f(w), f(w) = (w - 1)^2."""
    w = torch.linspace(0, 10, 100_001, dtype=torch.float64)
    want = float((y * w - (w - 1).square()).max())
    found = chi2_conjugate(torch.tensor(y, dtype=torch.float64))
    assert float(found) == pytest.approx(want, abs=1e-7)
    x = torch.tensor(y, requires_grad=True)
    chi2_conjugate(x).backward()
    assert float(x.grad) == pytest.approx(max(y / 2 + 1, 0.0), abs=1e-6)


def rows():
    return Rows({
        "obs": torch.tensor([[0.0], [1.0], [1.0]]), "next_obs": torch.tensor([[1.0], [0.0], [1.0]]),
        "reward": torch.tensor([1.0, -2.0, 0.5]), "terminated": torch.tensor([0.0, 0.0, 1.0]),
        "action": torch.zeros(3, 1),
    })  # fmt: skip


def test_each_term_moves_one_end_of_the_residual():
    v, slow = Table([[1.0, 2.0], [0.0, 3.0]]), Table([[0.5, 1.5], [0.7, 1.0]])
    terms = chi2_dice(lam=0.25, gamma=0.5)(Nets(v=v, v_target=slow), rows())
    # V' (lowest) is 0.5 at state 0 and 1.0 at state 1
    assert terms["value"].tolist() == pytest.approx([0.75 * 1.0, 0.75 * 5.0, 0.75 * 5.0])
    e = [
        [1 + 0.5 * 1.0 - 1.0, 1 + 0.5 - 0.0],
        [-2 + 0.25 - 2.0, -2 + 0.25 - 3.0],
        [0.5 - 2, 0.5 - 3],
    ]
    b = [[1 + 0.5 * 2.0 - 0.5, 1 + 0.5 * 3.0 - 0.5], [-2 + 0.5 - 1, -2 + 0 - 1], [0.5 - 1, 0.5 - 1]]
    for name, errors in (("forward", e), ("backward", b)):
        want = 0.25 * chi2_conjugate(torch.tensor(errors)).sum(1)
        torch.testing.assert_close(terms[name].detach(), want)
    (forward,) = torch.autograd.grad(terms["forward"].sum(), v.values, retain_graph=True)
    (backward,) = torch.autograd.grad(terms["backward"].sum(), v.values)
    w = lambda y: max(y / 2 + 1, 0.0)  # noqa: E731
    want = [-0.25 * w(e[0][0]), -0.25 * (w(e[1][0]) + w(e[2][0]))]
    assert forward[0].tolist() == pytest.approx(want)
    want = [0.25 * 0.5 * w(b[1][0]), 0.25 * 0.5 * w(b[0][0])]  # the last row ended: no next state
    assert backward[0].tolist() == pytest.approx(want)
    assert slow.values.grad is None


def test_cloning_counts_what_was_better_than_expected():
    v, slow = Table([[1.0, 2.0], [0.0, 3.0]]), Table([[0.5, 1.5], [0.7, 1.0]])
    nets = Nets(v=v, v_target=slow)
    found = forward_residual(cap=1.4, gamma=0.5)(nets, rows())
    assert found.tolist() == pytest.approx([1.4, 0.0, 0.0])  # 1 + 0.5 - 0, cut; -3.75; -1.5
    found = forward_residual(cap=1.4, gamma=0.5, sharp=False)(nets, rows())
    assert found.tolist() == pytest.approx([1.4, 0.0, 0.25])
