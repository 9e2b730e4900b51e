"""The family of policies: its coefficient, how that is read, and the density of the choice."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.policies.family import balance, embedded, family


def test_a_coefficient_is_read_as_sines_and_cosines_of_falling_rate():
    found = embedded(torch.tensor([2.0, 0.0]), 4, 100.0)
    want = [math.sin(2.0), math.cos(2.0), math.sin(0.2), math.cos(0.2)]
    torch.testing.assert_close(found, torch.tensor([want, [0.0, 1.0, 0.0, 1.0]]))


def test_a_member_is_a_gaussian_around_what_its_coefficient_gives():
    torch.manual_seed(0)
    net, obs, action = family((8,))(Spaces(3, 2)), torch.randn(5, 3), torch.rand(5, 2)
    b = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    with torch.no_grad():
        net.member.spread.copy_(torch.tensor([-0.5, 0.3]))
        want = torch.distributions.Normal(net(obs, b), net.member.spread.exp())
        torch.testing.assert_close(net.logp(obs, action, b), want.log_prob(action).sum(-1))
        assert not torch.allclose(net(obs, b), net(obs, b + 1.0))


@torch.no_grad()
def test_the_choice_lies_in_its_range_and_has_the_density_of_a_squashed_gaussian():
    torch.manual_seed(0)
    net, obs = balance(2.0, 10.0, (8,))(Spaces(3, 2)), torch.randn(2000, 3)
    b, logp = net.sample(obs)
    assert float(b.min()) > 2.0 and float(b.max()) < 10.0
    base = torch.distributions.Normal(net.net(obs)[0, :, 0], 1.0)
    squashed = torch.distributions.TransformedDistribution(
        base, torch.distributions.TanhTransform()
    )
    z = (b - 6.0) / 4.0
    inside = z.abs() < 0.999
    torch.testing.assert_close(logp[inside], squashed.log_prob(z)[inside], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(net(obs), 6.0 + 4.0 * torch.tanh(base.mean))


def test_other_actions_and_odd_embeddings_are_refused():
    with pytest.raises(InputError, match="continuous"):
        family()(Spaces(3, n_actions=2))
    with pytest.raises(InputError, match="pairs"):
        family(d=5)(Spaces(3, 2))
