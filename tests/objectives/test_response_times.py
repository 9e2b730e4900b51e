"""The drift-diffusion model: its laws against closed forms, and losses that are least at the
truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from surpass.objectives.response_times import (
    Timed,
    bradley_terry,
    drift_diffusion,
    drift_likelihood,
    log_exit_density,
    solve_drift,
)

T = torch.linspace(1e-4, 30, 60_001, dtype=torch.float64)


@pytest.mark.parametrize(("v", "b"), [(0.0, 1.0), (0.7, 1.0), (-2.0, 1.5)])
def test_the_likelihood_is_a_density_with_the_known_moments(v, b):
    mass = {}
    for x in (1.0, -1.0):
        seen = Timed(torch.full_like(T, v), torch.full_like(T, x), T)
        mass[x] = drift_likelihood(b)(seen).exp()
    total = torch.trapezoid(mass[1.0] + mass[-1.0], T)
    choice = torch.trapezoid(mass[1.0] - mass[-1.0], T)
    time = torch.trapezoid((mass[1.0] + mass[-1.0]) * T, T)
    assert float(total) == pytest.approx(1, abs=1e-6)
    assert float(choice) == pytest.approx(math.tanh(b * v), abs=1e-6)
    mean = b * math.tanh(b * v) / v if v else b**2
    assert float(time) == pytest.approx(mean, abs=1e-5)


def test_the_two_series_meet():
    t = torch.tensor([0.6 - 1e-9, 0.6 + 1e-9], dtype=torch.float64)
    a, b = log_exit_density(t).tolist()
    assert a == pytest.approx(b, abs=1e-7)


def test_the_closed_form_is_where_the_gradient_vanishes():
    g = torch.Generator().manual_seed(0)
    phi = torch.randn(30, 3, generator=g, dtype=torch.float64)
    x = torch.where(torch.rand(30, generator=g) < 0.5, 1.0, -1.0).double()
    seconds = torch.rand(30, generator=g, dtype=torch.float64) + 0.1
    theta = solve_drift(phi, x, seconds, boundary=1.3, ridge=0.0).requires_grad_()
    drift_diffusion(1.3)(Timed(phi @ theta, x, seconds)).sum().backward()
    assert theta.grad is not None and float(theta.grad.abs().max()) < 1e-9


def test_one_menu_gives_the_ratio_of_means():
    """theta = b mean(x) / mean(T) where every comparison is the same."""
    phi, x = torch.ones(4, 1).double(), torch.tensor([1.0, 1.0, 1.0, -1.0]).double()
    seconds = torch.tensor([0.5, 1.0, 1.5, 2.0]).double()
    theta = solve_drift(phi, x, seconds, boundary=2.0, ridge=0.0)
    assert float(theta) == pytest.approx(2.0 * 0.5 / 1.25)


def test_choices_alone_have_the_models_own_link():
    """exp(-bradley_terry) is the chance of the choice, (1 + tanh(b v)) / 2."""
    v = torch.tensor([-1.0, 0.3, 2.0]).double()
    loss = bradley_terry(1.5)(Timed(v, torch.ones(3).double(), torch.ones(3).double()))
    np.testing.assert_allclose((-loss).exp(), (1 + torch.tanh(1.5 * v)) / 2)


def test_a_time_below_the_delay_is_impossible():
    seen = Timed(torch.ones(1).double(), torch.ones(1).double(), -torch.ones(1).double())
    assert float(drift_likelihood()(seen)) == -math.inf
