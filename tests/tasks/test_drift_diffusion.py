"""Timed comparisons follow the exact law of the drift-diffusion model."""

import math

import numpy as np
import pytest
import torch

from surpass.tasks.drift_diffusion import compare


@pytest.mark.parametrize("v", [0.2, 1.5, 5.0])
def test_choices_and_times_have_the_means_of_the_law(v):
    b, n = 1.5, 2000
    log = compare(torch.zeros(n, 1), torch.full((n,), v), np.random.default_rng(0),
                  boundary=b, delay=0.3)  # fmt: skip
    error = float(log.seconds.std()) / math.sqrt(n)
    assert float(log.seconds.mean()) == pytest.approx(0.3 + b / v * math.tanh(b * v), abs=4 * error)
    assert float(log.choice.mean()) == pytest.approx(math.tanh(b * v), abs=4 / math.sqrt(n))
    assert float(log.seconds.min()) > 0.3


def test_the_spread_of_times_without_drift_is_known():
    """Var T = (2/3) b^4 at v = 0."""
    n = 4000
    log = compare(torch.zeros(n, 1), torch.zeros(n), np.random.default_rng(1))
    assert float(log.seconds.var()) == pytest.approx(2 / 3, rel=0.15)
