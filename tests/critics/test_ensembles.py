"""Critics: their heads against formulas, their shapes against loops."""

import math

import pytest
import torch

from surpass.critics.ensembles import critic, dual, value
from surpass.critics.neighbors import nearest
from surpass.forms import Spaces

SPACES = Spaces(4, 2, 0, (-1.0, -1.0), (1.0, 1.0))
OBS, ACTION = torch.randn(5, 4), torch.rand(5, 2) * 2 - 1


@pytest.mark.parametrize("head", ["scalar", "gaussian", "quantile", "hl-gauss"])
def test_many_actions_of_a_state_are_valued_as_each_alone(head):
    q = critic(3, head=head, bins=11)(SPACES)
    many = torch.rand(7, 5, 2) * 2 - 1
    each = torch.stack([q(OBS, a) for a in many], 1)
    torch.testing.assert_close(q(OBS, many), each, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q(OBS, ACTION, first=2), q(OBS, ACTION)[:2])


def test_discrete_actions_are_picked_from_all_values():
    q = critic(2)(Spaces(4, n_actions=3))
    every = q.all(OBS)
    chosen = torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(q(OBS, chosen), every[:, torch.arange(5), chosen])
    many = torch.stack([chosen, (chosen + 1) % 3])
    torch.testing.assert_close(q(OBS, many)[:, 1], q(OBS, many[1]))


def test_action_gradients_are_those_of_each_member():
    q = critic(3)(SPACES)
    found = q.action_gradients(OBS, ACTION)
    for i in range(3):
        action = ACTION.clone().requires_grad_()
        (want,) = torch.autograd.grad(q(OBS, action)[i].sum(), action)
        torch.testing.assert_close(found[i], want)


def test_the_scalar_head_is_a_squared_or_a_huber_error():
    head = critic(1)(SPACES)
    out, y = torch.tensor([[[0.5], [3.0]]]), torch.zeros(2)
    torch.testing.assert_close(head.loss_of(out, y, None), torch.tensor([[0.25, 9.0]]))
    # d^2 / (2 delta) within delta = 1/2... beyond it |d| - delta / 2
    torch.testing.assert_close(head.loss_of(out, y, 1.0), torch.tensor([[0.125, 2.5]]))
    torch.testing.assert_close(head.loss_of(out, y, 4.0), torch.tensor([[0.25 / 8, 9.0 / 8]]))


def test_quantiles_fitted_by_descent_are_those_of_the_target():
    head = critic(1, head="quantile", bins=4)(SPACES)
    sample = torch.distributions.Exponential(torch.tensor(1.0)).sample((1, 4000))
    out = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([out], 0.02)
    for _ in range(500):
        optimizer.zero_grad()
        head.loss_of(out, sample, 0.01).sum().backward()
        optimizer.step()
    want = torch.quantile(sample[0], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(out.detach()[0, 0], want, atol=0.03, rtol=0.0)


def test_the_histogram_has_mass_one_and_the_mean_of_its_target():
    head = critic(1, head="hl-gauss", bins=51, support=(-10.0, 10.0))(SPACES)
    y = torch.tensor([-7.3, 0.0, 4.4])
    mass = head._histogram(y)
    centers = 0.5 * (head.edges[1:] + head.edges[:-1])
    torch.testing.assert_close(mass.sum(-1), torch.ones(3))
    torch.testing.assert_close(mass @ centers, y, atol=0.02, rtol=0.0)
    torch.testing.assert_close(head.mean_of(mass.log()), y, atol=0.02, rtol=0.0)
    entropy = -(mass * mass.clamp(min=1e-30).log()).sum(-1)
    torch.testing.assert_close(head.loss_of(mass.clamp(min=1e-30).log()[None], y, None)[0], entropy)


def test_a_state_value_fits_its_target():
    v = value(2)(SPACES)
    torch.testing.assert_close(v.fit(OBS, torch.ones(5)), (v(OBS) - 1).square())


def test_a_dual_is_positive_and_starts_where_asked():
    net = dual(0.2)(SPACES)
    assert float(net().detach()) == pytest.approx(0.2)
    assert float(net.log_value.detach()) == pytest.approx(math.log(0.2))


def test_neighbors_are_the_nearest_in_whatever_blocks():
    g = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(30, 5, generator=g), torch.randn(1000, 5, generator=g)
    want = torch.cdist(queries, keys).argmin(-1)
    for block in (1000, 64, 7):
        assert torch.equal(nearest(queries, keys, block), want)
