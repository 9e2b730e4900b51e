"""The variational density of actions, against a sum over all codes and against its own bound."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.policies.deterministic import deterministic
from surpass.policies.variational import action_vae


def made(k=1, latent=1, beta=0.5):
    torch.manual_seed(0)
    return action_vae((16,), latent, beta)(Spaces(2, k))


def by_grid(net, obs, action):
    """log of the integral of N(a; decode(s, z), beta / 4) N(z; 0, 1) over a grid of codes."""
    z = torch.linspace(-8, 8, 4001)
    decoded = net.decode(obs, z[:, None, None].expand(-1, len(obs), 1))[..., 0]
    normal = torch.distributions.Normal
    density = normal(decoded, math.sqrt(net.beta / 4)).log_prob(action[:, 0])
    prior = normal(0.0, 1.0).log_prob(z)[:, None]
    return torch.logsumexp(density + prior, 0) + math.log(16 / 4000)


@torch.no_grad()
def test_importance_weights_give_the_density_that_a_sum_over_codes_gives():
    net, obs, action = made(), torch.randn(6, 2), torch.rand(6, 1) * 2 - 1
    want = by_grid(net, obs, action)
    torch.testing.assert_close(net.log_density(obs, action, 20_000), want, rtol=0, atol=0.03)
    few = torch.stack([net.log_density(obs, action, 1) for _ in range(4000)]).mean(0)
    assert (few < want + 0.03).all() and (few < want - 1e-3).any()  # one sample: the evidence bound


@torch.no_grad()
def test_the_loss_is_the_evidence_bound_times_a_constant_plus_another():
    """-ELBO = 2 k / beta loss + k / 2 log(2 pi beta / 4), codes twice as long as actions."""
    k, beta = 2, 0.5
    net, obs, action = made(k, 2 * k, beta), torch.randn(5, 2), torch.rand(5, k) * 2 - 1
    loss = torch.stack([net.imitation(obs, action, 50) for _ in range(100)]).mean(0)
    bound = torch.stack([net.log_density(obs, action, 1) for _ in range(5000)]).mean(0)
    want = 2 * k / beta * loss + k / 2 * math.log(2 * math.pi * beta / 4)
    torch.testing.assert_close(-bound, want, rtol=0, atol=0.06)


def test_fitted_to_two_modes_it_finds_what_lies_between_them_unlikely():
    net = made(beta=0.1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    obs = torch.zeros(64, 2)
    for _ in range(600):
        action = 0.8 * torch.sign(torch.randn(64, 1))
        loss = net.imitation(obs, action).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        at = torch.tensor([[-0.8], [0.0], [0.8]])
        low, middle, high = net.log_density(torch.zeros(3, 2), at, 2000).tolist()
    assert min(low, high) > middle + 1.0


def test_the_spread_of_codes_is_bounded_and_other_actions_are_refused():
    net = made()
    with torch.no_grad():
        net.encoder.bias1[..., 1] = -30.0
    _, log_std = net.encode(torch.randn(3, 2), torch.zeros(3, 1))
    assert log_std.detach().eq(-4.0).all()
    with pytest.raises(InputError, match="continuous"):
        action_vae()(Spaces(2, n_actions=3))
    with pytest.raises(InputError, match="beta=0"):
        action_vae(beta=0.0)(Spaces(2, 1))


def test_units_are_dropped_where_gradients_are_on_and_their_mean_stays():
    torch.manual_seed(0)
    net, obs = deterministic((64,), dropout=0.25)(Spaces(3, 1)), torch.randn(1, 3)
    whole = deterministic((64,))(Spaces(3, 1))
    whole.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net(obs), net(obs)) and torch.equal(net(obs), whole(obs))
    drawn = torch.stack([torch.atanh(net(obs).detach()) for _ in range(4000)])
    want = torch.atanh(whole(obs).detach())
    assert float(drawn.std()) > 0.01
    torch.testing.assert_close(drawn.mean(0), want, rtol=0, atol=4 * float(drawn.std()) / 63)
