import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.policies.tilted import (
    Capped,
    Constant,
    Mixture,
    Multinomial,
    Tilted,
    capped,
    fit_multinomial,
    rebuild,
    specification,
    tilted,
)


def _table(rng, n, actions, zeros=True):
    rho = rng.dirichlet(np.full(actions, 0.5), n)
    if zeros:
        rho[rng.random((n, actions)) < 0.2] = 0.0
        rho[:, 0] += 1e-3
    return torch.from_numpy(rho / rho.sum(1, keepdims=True))


def _tilt(strength=2.0, fitted=None, d=3, actions=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    policy = Tilted(d, actions, strength, fitted=fitted)
    policy.mean = torch.randn(d, generator=g, dtype=torch.float64)
    policy.spread = torch.rand(d, generator=g, dtype=torch.float64) + 0.5
    policy.theta = torch.randn(actions, d + 1, generator=g, dtype=torch.float64)
    policy.scale = torch.tensor(0.7, dtype=torch.float64)
    return policy


@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 4.0, 1000.0]))
@settings(max_examples=40, deadline=None)
def test_tilts_stay_within_21_times_the_reference(seed, strength):
    rng = np.random.default_rng(seed)
    rho = _table(rng, 30, 6)
    pi = tilted(rho, torch.from_numpy(rng.normal(size=(30, 6))), strength)
    torch.testing.assert_close(pi.sum(1), torch.ones(30, dtype=torch.float64))
    assert (pi <= 21 * rho + 1e-12).all()
    assert (pi >= 0).all()
    assert (pi[rho == 0] == 0).all()


def test_a_tilt_by_hand():
    rho = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    advantage = torch.tensor([[0.0, np.log(2.0), -np.log(2.0)]], dtype=torch.float64)
    expected = torch.tensor([[0.5, 0.6, 0.1]], dtype=torch.float64) / 1.2
    torch.testing.assert_close(tilted(rho, advantage, 1.0), expected)


def test_the_cap_returns_mass_in_proportion():
    rho = torch.tensor([[0.01, 0.99]], dtype=torch.float64)
    pi = capped(torch.tensor([[1.0, 0.0]], dtype=torch.float64), rho)
    # 0.2 is kept, 0.8 returns: 0.2 + 0.8 * 0.01, and 0.8 * 0.99
    torch.testing.assert_close(pi, torch.tensor([[0.208, 0.792]], dtype=torch.float64))


def test_a_large_strength_is_greedy_on_the_support():
    rho = torch.tensor([[0.4, 0.3, 0.3, 0.0]], dtype=torch.float64)
    pi = tilted(rho, torch.tensor([[0.1, 0.2, 0.15, 9.0]], dtype=torch.float64), 1000.0)
    torch.testing.assert_close(pi, torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64))


def test_the_tilt_module_follows_its_formula():
    policy = _tilt()
    x = torch.randn(20, 3, dtype=torch.float64)
    rho = _table(np.random.default_rng(0), 20, 4, zeros=False)
    z = torch.cat([torch.ones(20, 1), (x - policy.mean) / policy.spread], 1)
    d = z @ policy.theta.T
    weight = rho * torch.exp(2.0 * (d - (rho * d).sum(1, keepdim=True)) / 0.7)
    torch.testing.assert_close(policy(x, rho), capped(weight / weight.sum(1, keepdim=True), rho))


def test_a_tilt_without_reference_says_so():
    with pytest.raises(InputError, match="reference"):
        _tilt()(torch.zeros(1, 3))


def test_a_mixture_averages_and_keeps_gains():
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(50, 3)))
    rho = _table(rng, 50, 4)
    q = torch.from_numpy(rng.normal(size=(50, 4)))
    parts = [_tilt(seed=1), _tilt(4.0, seed=2)]
    mixture = Mixture(parts, [0.3, 0.7])
    gains = [((p(x, rho) - rho) * q).sum(1).mean() for p in parts]
    gain = ((mixture(x, rho) - rho) * q).sum(1).mean()
    torch.testing.assert_close(gain, 0.3 * gains[0] + 0.7 * gains[1])
    with pytest.raises(InputError, match="distribution"):
        Mixture(parts, [0.5, 0.6])


def test_a_policy_is_rebuilt_from_json_and_state():
    fitted = Multinomial(3, 4)
    fitted.weight.normal_(generator=torch.Generator().manual_seed(4))
    inner = Capped(Constant(4, [0.7, 0.1, 0.1, 0.1]), fitted=fitted)
    policy = Mixture([_tilt(fitted=fitted), inner, _tilt(12.0, fitted=fitted)], [0.2, 0.5, 0.3])
    spec = json.loads(json.dumps(specification(policy)))
    again = rebuild(spec)
    again.load_state_dict(policy.state_dict())
    x = torch.randn(10, 3, dtype=torch.float64)
    assert torch.equal(again(x), policy(x))
    with pytest.raises(InputError, match="Tilted"):
        rebuild({"class": "Tiltd", "config": {}})


def test_a_fitted_reference_takes_support_from_the_caller():
    fitted = Constant(3, [0.5, 0.25, 0.25])
    policy = _tilt(fitted=fitted, actions=3)
    x = torch.randn(5, 3, dtype=torch.float64)
    offered = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64).expand(5, 3)
    explicit = _tilt(actions=3)(x, torch.tensor([[2 / 3, 0.0, 1 / 3]]).double().expand(5, 3))
    torch.testing.assert_close(policy(x, offered), explicit)


def test_the_multinomial_model_finds_the_policy_that_acted():
    rng = np.random.default_rng(5)
    x = rng.normal(1.0, 2.0, (20_000, 2))
    logits = x @ np.array([[0.5, -0.3, 0.0], [0.0, 0.4, -0.2]])
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    action = (rng.random(20_000)[:, None] > truth.cumsum(1)[:, :-1]).sum(1)
    model = fit_multinomial(torch.from_numpy(x), torch.from_numpy(action), 3)
    found = model(torch.from_numpy(x)).numpy()
    assert np.abs(found - truth).mean() < 0.01
    np.testing.assert_allclose(found.mean(0), np.bincount(action) / 20_000, atol=1e-3)
