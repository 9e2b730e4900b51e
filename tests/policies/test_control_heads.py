"""Policies for control: their densities against torch's distributions, their draws against both."""

import pytest
import torch
from torch import distributions as d

from surpass.errors import InputError
from surpass.forms import Acted, Spaces
from surpass.policies.acting import InEnvironment, best_of, greedy, mean, noisy, sampled
from surpass.policies.deterministic import deterministic
from surpass.policies.discrete import categorical
from surpass.policies.gaussian import actor, gaussian, mixture
from surpass.policies.networks import StackedMLP, remembering

SPACES = Spaces(4, 2, 0, (-1.0, -1.0), (1.0, 1.0))
OBS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Table(dict):
    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("norm", [False, True])
def test_an_ensemble_equals_its_members_as_modules(norm):
    net = StackedMLP(3, (4, 8, 2), norm)
    out = net(OBS)
    for i in range(3):
        hidden = OBS @ net.weight0[i] + net.bias0[i]
        if norm:
            layer = torch.nn.LayerNorm(8)
            layer.weight.data, layer.bias.data = net.gain0.data[i, 0], net.shift0.data[i, 0]
            hidden = layer(hidden)
        torch.testing.assert_close(out[i], hidden.relu() @ net.weight1[i] + net.bias1[i])
    torch.testing.assert_close(net(OBS, first=2), out[:2])
    more = torch.randn(6, 5, 3)
    wide = StackedMLP(3, (7, 8, 2), norm)
    both = wide.mixed(OBS, more)
    for m in range(6):
        torch.testing.assert_close(both[:, m], wide(torch.cat([OBS, more[m]], -1)))


def test_a_net_is_remembered_only_where_asked_and_for_the_same_tensor():
    net = StackedMLP(1, (4, 2))
    assert net(OBS) is not net(OBS)
    with remembering():
        assert net(OBS) is net(OBS)
        assert net(OBS) is not net(OBS.clone())


def _squashed(policy, obs):
    means, log_std, weights = policy.parameters_of(obs)
    parts = d.Independent(d.Normal(means, log_std.exp()), 1)
    return d.MixtureSameFamily(d.Categorical(logits=weights), parts)


@pytest.mark.parametrize("make", [gaussian(), mixture(3)])
def test_the_squashed_density_is_that_of_the_tanh_of_its_gaussians(make):
    policy = make(SPACES)
    action = torch.rand(5, 2) * 1.8 - 0.9
    u = torch.atanh(action)
    want = _squashed(policy, OBS).log_prob(u) - torch.log1p(-action.square()).sum(-1)
    torch.testing.assert_close(policy.logp(OBS, action), want, rtol=1e-4, atol=1e-4)
    many = torch.stack([action, 0.5 * action])
    torch.testing.assert_close(policy.logp(OBS, many)[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [gaussian(), mixture(3), gaussian(squashed=False)])
def test_draws_come_with_their_log_probability(make):
    policy = make(SPACES)
    action, logp = policy.sample(OBS, 50)
    inside = (action.abs() < 0.99).all(-1)
    torch.testing.assert_close(policy.logp(OBS, action)[inside], logp[inside], rtol=1e-3, atol=1e-3)
    one, one_logp = policy.sample(OBS)
    assert one.shape == (5, 2) and one_logp.shape == (5,)


def test_a_squashed_density_integrates_to_one():
    policy = mixture(2)(Spaces(4, 1, 0, (-1.0,), (1.0,)))
    grid = torch.linspace(-0.9999, 0.9999, 20_001)
    logp = policy.logp(OBS[:1], grid[:, None, None])
    assert float(torch.trapezoid(logp.detach().exp()[:, 0], grid)) == pytest.approx(1.0, abs=2e-3)


def test_draws_of_a_mixture_have_its_moments():
    policy = mixture(3)(SPACES)
    with torch.no_grad():
        u = torch.atanh(policy.sample(OBS, 20_000)[0].clamp(-1 + 1e-6, 1 - 1e-6))
        want = _squashed(policy, OBS)
    torch.testing.assert_close(u.mean(0), want.mean, atol=0.05, rtol=0.0)
    torch.testing.assert_close(u.var(0), want.variance, atol=0.1, rtol=0.05)


def test_a_categorical_policy_draws_with_its_probabilities():
    policy = categorical()(Spaces(4, n_actions=3))
    action, logp = policy.sample(OBS, 20_000)
    share = torch.nn.functional.one_hot(action, 3).float().mean(0)
    torch.testing.assert_close(share, policy.logits(OBS).exp(), atol=0.02, rtol=0.0)
    torch.testing.assert_close(policy.logp(OBS, action), logp)
    assert torch.equal(policy(OBS), policy.logits(OBS).argmax(-1))
    torch.testing.assert_close(policy.imitation(OBS, policy(OBS)), -policy.logits(OBS).amax(-1))


def test_ways_to_act():
    pi = deterministic()(SPACES)
    nets = Table(pi=pi, q=lambda obs, action: -(action - 0.3).square().sum(-1)[None])
    torch.testing.assert_close(mean()(nets, {}).act(OBS).action, pi(OBS))
    jittered = torch.stack([noisy(0.1)(nets, {}).act(OBS).action - pi(OBS) for _ in range(800)])
    assert float(jittered.std().detach()) == pytest.approx(0.1, rel=0.05)
    nets["pi"] = gaussian()(SPACES)
    torch.manual_seed(0)
    drawn = nets.pi.sample(OBS, 10)[0]
    torch.manual_seed(0)
    best = best_of(n=10)(nets, {}).act(OBS).action
    distance = (drawn - 0.3).square().sum(-1)
    torch.testing.assert_close((best - 0.3).square().sum(-1), distance.min(0).values)
    acted = sampled()(nets, {}).act(OBS)
    torch.testing.assert_close(nets.pi.logp(OBS, acted.action), acted.logp, rtol=1e-3, atol=1e-3)


def test_the_greedy_action_has_the_largest_mean_value():
    values = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 1.0]]])

    class Critics:
        def all(self, obs):
            return values

    assert greedy()(Table(q=Critics()), {}).act(OBS).action.tolist() == [1, 1]


def test_actions_and_densities_are_those_of_the_environment():
    spaces = Spaces(1, 2, 0, (-2.0, 0.0), (2.0, 10.0))

    class Half:
        def act(self, obs, memory=None):
            return Acted(torch.tensor([[0.5, -1.0]]), torch.tensor([0.0]))

    policy = InEnvironment(Half(), spaces, torch.tensor([1.0]), torch.tensor([2.0]))
    acted = policy.act(torch.tensor([5.0]))
    torch.testing.assert_close(acted.action, torch.tensor([1.0, 0.0]))
    assert float(acted.logp) == pytest.approx(-torch.tensor([2.0, 5.0]).log().sum().item())


def test_the_kind_of_actions_must_fit():
    with pytest.raises(InputError, match="needs continuous actions"):
        gaussian()(Spaces(4, n_actions=3))
    with pytest.raises(InputError, match="needs continuous actions"):
        deterministic()(Spaces(4, n_actions=3))
    with pytest.raises(InputError, match="needs discrete actions"):
        categorical()(SPACES)
    by_kind = [type(actor()(s)).__name__ for s in (SPACES, Spaces(4, n_actions=3))]
    assert by_kind == ["BoundedGaussian", "Categorical"]
