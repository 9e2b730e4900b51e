"""Borrowed parameters, and a virtual step, against what is computed by hand."""

import pytest
import torch
from torch import nn

from surpass.critics.ensembles import value
from surpass.forms import Spaces
from surpass.objectives.rows import Rows
from surpass.parts import part
from surpass.policies.borrowed import Borrowed, Pooled, after_step
from surpass.policies.networks import remembering
from surpass.policies.stochastic import stochastic


class Scale(nn.Module):
    """x times a parameter."""

    def __init__(self, start):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(float(start)))

    def forward(self, x):
        return self.by * x

    def squared(self, x):
        return (self.by * x).square()


def test_a_borrowed_net_is_called_as_the_net_itself_and_leaves_it_alone():
    net = Scale(2.0)
    other = Borrowed(net, {"by": torch.tensor(5.0)})
    x = torch.tensor([1.0, 2.0])
    assert other(x).tolist() == [5.0, 10.0]
    assert other.squared(x).tolist() == [25.0, 100.0]
    assert float(other.by) == 5.0 and net(x).tolist() == [2.0, 4.0]


def test_what_was_remembered_of_the_net_does_not_count_for_others():
    net = value(hidden=(4,))(Spaces(3, 1))
    doubled = {k: 2.0 * p.detach() for k, p in net.named_parameters()}
    x = torch.randn(5, 3)
    with remembering():
        before, other, after = net(x), Borrowed(net, doubled)(x), net(x)
    assert before is after or torch.equal(before, after)
    assert not torch.allclose(before, other)
    net.load_state_dict(doubled)
    torch.testing.assert_close(net(x), other)


def test_a_pool_stacks_what_its_states_give():
    pool = Pooled(Scale(1.0), 3)
    pool.members.by.data = torch.tensor([1.0, 2.0, 3.0])
    x = torch.tensor([1.0, 10.0])
    assert pool(x).tolist() == [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]
    assert pool.squared(x)[:, 0].tolist() == [1.0, 4.0, 9.0]
    assert pool[-1](x).tolist() == [3.0, 30.0]
    policies = Pooled(stochastic((4,))(Spaces(2, n_actions=3)), 2)
    logp = policies.logp(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
    assert logp.shape == (2, 5) and torch.equal(logp[0], logp[1])


class Nets(dict):
    __getattr__ = dict.__getitem__


@part
def fits(nets, rows, /, net: str = "pi"):
    """(w x - y)^2 / 2, weighed by what another net says of x."""
    return 0.5 * nets.weight(rows.x) * (nets[net](rows.x) - rows.y).square()


@part
def distance(nets, rows, /):
    """(w - 1)^2 / 2: how far the parameter is from 1."""
    return 0.5 * (nets.pi.by - 1.0).square()


def test_a_virtual_step_carries_gradients_through():
    rows = Rows({"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([1.0, 1.0])})
    pi, weight = Scale(0.5), Scale(1.0)
    loss = after_step(distance(), fits(), lr=0.1)(Nets(pi=pi, weight=weight), rows)
    # inner: mean of c x (w x - y)^2 / 2; its slope in w at c = 1, w = 0.5 is
    # ((0.5 - 1) + 2 * 2 * (1 - 1)) / 2 = -0.25, so the step goes to w' = 0.525
    assert float(loss) == pytest.approx(0.5 * (0.525 - 1.0) ** 2)
    loss.backward()
    # d w'/dc = -0.1 * -0.25, d w'/dw = 1 - 0.1 * (1 * 1 + 2 * 4) / 2
    assert float(weight.by.grad) == pytest.approx((0.525 - 1.0) * 0.025)
    assert float(pi.by.grad) == pytest.approx((0.525 - 1.0) * (1 - 0.1 * 4.5))
    assert float(pi.by) == 0.5
