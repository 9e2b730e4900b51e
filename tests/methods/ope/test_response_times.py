"""Utilities from timed choices: consistent, with a delay that can be found."""

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.methods.ope.response_times import response_time_pref
from surpass.tasks.drift_diffusion import Comparisons, compare

THETA = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)


def log(n, delay=0.0, seed=0):
    rng = np.random.default_rng(seed)
    phi = torch.from_numpy(rng.normal(size=(n, 3)))
    return compare(phi, phi @ THETA, rng, boundary=1.5, delay=delay)


def test_the_error_is_no_larger_than_its_own_covariance_says():
    """The squared error in units of the sandwich covariance is chi-squared with 3 degrees of
    freedom; 16.3 is its 99.9 % point."""
    data = log(3000)
    theta = response_time_pref(1.5).measure(data).theta
    phi, v = data.features, data.features @ theta
    bend = (phi * data.seconds[:, None]).T @ phi / 1.5
    noise = phi * (data.choice - data.seconds * v / 1.5)[:, None]
    pull = bend @ (theta - THETA)
    assert float((theta - THETA).norm()) < 0.1
    assert float(pull @ torch.linalg.solve(noise.T @ noise, pull)) < 16.3


def test_a_delay_is_found_and_taken_off():
    data = log(500, delay=0.4)
    naive = response_time_pref(1.5).measure(data)
    found = response_time_pref(1.5, delay=None).measure(data)
    assert found.delay == pytest.approx(0.4, abs=0.08)
    assert (found.theta - THETA).norm() < 0.5 * (naive.theta - THETA).norm()


def test_scores_of_the_fit_have_unit_size_and_no_bias():
    z = response_time_pref(1.5).measure(log(2000)).z
    assert float(z.square().mean()) == pytest.approx(1)
    assert abs(float(z.mean())) < 0.05


def test_a_delay_beyond_the_shortest_time_is_refused():
    data = Comparisons(torch.ones(2, 1), torch.ones(2), torch.tensor([0.2, 0.9]))
    with pytest.raises(InputError, match=r"shortest decision took 0\.2 s"):
        response_time_pref(delay=0.3).measure(data)
