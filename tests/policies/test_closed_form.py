"""The closed-form improvement against a numerical optimizer, and its limits."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from surpass.forms import Spaces
from surpass.policies.closed_form import (
    gaussian_shift,
    jensen_proposal,
    max_proposals,
    shifted,
)
from surpass.policies.gaussian import mixture


class Table(dict):
    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("seed", range(3))
def test_the_shift_of_a_gaussian_is_the_constrained_optimum(seed):
    rng = np.random.default_rng(seed)
    mean, std, g = rng.normal(size=3), rng.uniform(0.3, 2, 3), rng.normal(size=3)
    constraint = {"type": "ineq", "fun": lambda u: 2 * 0.5 - (((u - mean) / std) ** 2).sum()}
    best = minimize(lambda u: -(g @ u), mean, constraints=[constraint], tol=1e-10).x
    tensors = (torch.tensor(v, dtype=torch.float32) for v in (mean, std, g))
    found = gaussian_shift(*tensors, 0.5)
    np.testing.assert_allclose(found.numpy(), best, atol=1e-3)


def _mixture(seed):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(1, 3, 2, generator=g) * 0.3
    stds = 0.5 + torch.rand(1, 3, 2, generator=g)
    weights = torch.log_softmax(torch.randn(1, 3, generator=g), -1)
    return means, stds, weights, torch.randn(2, generator=g)


@pytest.mark.parametrize("seed", range(5))
def test_proposals_of_a_mixture_keep_its_density_and_do_not_lose_value(seed):
    """Both proposals satisfy -log pi(u) <= -log pi's best component peak + log_tau by their
    bounds, and with a linear Q are no worse than the mean they start from."""
    means, stds, weights, direction = _mixture(seed)
    log_tau = 1.0
    parts = torch.distributions.Independent(torch.distributions.Normal(means, stds), 1)
    peaks = (weights + parts.log_prob(means)).amax(-1)
    whole = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=weights), parts
    )
    gradient = direction.expand(1, 3, 2)
    u, allowed = max_proposals(means, stds, weights, gradient, log_tau)
    budget = (log_tau + (weights + parts.log_prob(means)) - peaks[:, None]).clamp(min=0)
    for i in range(3):
        if allowed[0, i] and budget[0, i] > 0:
            assert whole.log_prob(u[:, i]) >= peaks - log_tau - 1e-4
        assert (u[0, i] - means[0, i]) @ direction >= -1e-5
    middle, feasible = jensen_proposal(means, stds, weights, lambda c: direction[None], log_tau)
    if feasible:
        normalizer = (weights.exp() * parts.log_prob(means)).sum(-1)
        assert whole.log_prob(middle) >= normalizer - log_tau - 1e-4


def test_no_budget_gives_the_behavior_and_more_gives_more_value():
    spaces = Spaces(3, 2, 0, (-1.0, -1.0), (1.0, 1.0))
    pi, obs = mixture(2)(spaces), torch.randn(6, 3)
    worth = torch.tensor([1.0, -2.0])
    nets = Table(pi=pi, q=lambda obs, action: (action @ worth).expand(2, *action.shape[:-1]))
    values = []
    for log_tau in (0.0, 0.2, 0.8):
        with torch.no_grad():
            values.append((shifted(log_tau)(nets, {}).act(obs).action @ worth).detach())
    with torch.no_grad():
        torch.testing.assert_close(values[0], pi(obs) @ worth)
    assert (values[1] > values[0]).all() and (values[2] > values[1]).all()
