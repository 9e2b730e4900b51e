"""Moments and intervals against numpy, closed forms and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from surpass.errors import InputError
from surpass.evaluation.intervals import (
    bernstein,
    bootstrap,
    clopper_pearson,
    guarded,
    interval,
    normal,
    simultaneous,
    unit_means,
)
from surpass.evaluation.moments import Moments


def scores(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_moments_of_many_batches_are_numpys():
    x = scores(3000).view(1000, 3) * torch.tensor([1.0, 10.0, 1e-3]) + torch.tensor([0.0, 1e6, 5.0])
    sums = Moments([2, 1])
    for batch in x.split(137):
        sums.add(batch)
    np.testing.assert_allclose(sums.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(sums.covariance(0), np.cov(x.numpy()[:, :2].T), rtol=1e-9)
    np.testing.assert_allclose(sums.covariance(1)[0, 0], x.numpy()[:, 2].var(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(sums.maximum, x.amax(0), rtol=1e-12)
    np.testing.assert_allclose(sums.minimum, x.amin(0), rtol=1e-12)


def test_clustered_variance_is_that_of_unit_sums():
    unit = torch.arange(400) // 8
    x = scores(400) + scores(50, 1)[unit]
    sums = Moments([1])
    for batch, names in zip(x.split(90), unit.split(90), strict=True):
        sums.add(batch[:, None], names)
    totals = (x - x.mean()).view(50, 8).sum(1).numpy()
    by_hand = math.sqrt((totals @ totals) * 50 / 49) / 400
    assert math.sqrt(float(sums.covariance(0)[0, 0]) / 400) == pytest.approx(by_hand, rel=1e-12)
    assert normal(x, unit=unit).error == pytest.approx(by_hand, rel=1e-9)
    assert normal(x, unit=unit).value == pytest.approx(x.mean().item())
    assert by_hand > 2 * normal(x).error  # what ignoring the units would have hidden


def test_more_units_than_buckets_still_give_their_variance():
    unit = torch.arange(40_000) // 4
    x = scores(10_000, 2)[unit] + 0.1 * scores(40_000)
    sums = Moments([1], blocks=1009)
    sums.add(x[:, None], unit)
    assert math.sqrt(float(sums.covariance(0)[0, 0]) / 40_000) == pytest.approx(
        normal(x, unit=unit).error, rel=0.08
    )


def test_unit_means_have_the_mean_of_the_rows():
    unit = torch.tensor([5, 5, 9, 5, 2])
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0])
    # mean 4; sums of deviations 5: -5, 9: -1, 2: 6, each times 3 units / 5 rows
    torch.testing.assert_close(
        unit_means(x, unit).sort().values, torch.tensor([4 - 3.0, 4 - 0.6, 4 + 3.6])
    )


def test_normal_interval_is_scipys():
    x = scores(50)
    low, high = stats.t.interval(0.95, 49, x.mean().item(), stats.sem(x.numpy()))
    found = normal(x)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_multiplier_bootstrap_is_the_normal_interval_in_large_samples():
    for n in (5_000, 200_000):  # fewer and more rows than buckets
        x = scores(n) + 3.0
        drawn, exact = bootstrap(x, resamples=4000), normal(x)
        assert drawn.error == pytest.approx(exact.error, rel=1e-9)
        assert drawn.low == pytest.approx(exact.low, abs=0.08 * exact.error)
        assert drawn.high == pytest.approx(exact.high, abs=0.08 * exact.error)


def test_bootstrap_leans_with_the_skew():
    x = torch.from_numpy(np.random.default_rng(0).lognormal(0, 1.5, 300))
    found = bootstrap(x, resamples=4000)
    assert found.high - found.value > 1.15 * (found.value - found.low)


def test_bernstein_is_maurer_and_pontils_formula():
    x = (scores(100) > 0).double()
    log = math.log(4 / 0.05)
    radius = math.sqrt(2 * x.var().item() * log / 100) + 7 * log / (3 * 99)
    found = bernstein(x, 0.0, 1.0)
    assert found.high - found.value == pytest.approx(radius)
    assert found.value - found.low == pytest.approx(radius)
    with pytest.raises(InputError, match="outside the stated range"):
        bernstein(x, 0.5, 1.0)


def test_bernstein_counts_units_and_reaches_as_far_as_the_largest():
    unit = torch.tensor([0] * 10 + list(range(1, 91)))  # one unit of 10 rows, 90 of one
    x = (unit == 0).double()
    # mean 0.1; the large unit's sum of deviations is 9, times 91 units / 100 rows
    y = torch.tensor([0.1 + 0.91 * 9.0] + [0.1 - 0.91 * 0.1] * 90, dtype=torch.float64)
    width = 10 * 91 / 100  # the largest unit's rows over the mean unit's
    log = math.log(4 / 0.05)
    radius = math.sqrt(2 * y.var().item() * log / 91) + 7 * width * log / (3 * 90)
    found = bernstein(x, 0.0, 1.0, unit=unit)
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(radius)


def test_clopper_pearson_is_scipys_exact_interval():
    x = torch.tensor([2.0] * 7 + [-1.0] * 33)
    exact = stats.binomtest(7, 40).proportion_ci(0.95, "exact")
    found = clopper_pearson(x)
    assert found.low == pytest.approx(-1 + 3 * exact.low)
    assert found.high == pytest.approx(-1 + 3 * exact.high)
    assert clopper_pearson(torch.zeros(10)).value == 0.0
    with pytest.raises(InputError, match="two values"):
        clopper_pearson(scores(5))


def test_guarded_is_clopper_pearson_on_two_values_and_normal_in_large_samples():
    x = torch.tensor([1.0] * 30 + [0.0] * 270, dtype=torch.float64)
    ours, exact = guarded(x, 0.0, 1.0), clopper_pearson(x)
    assert ours.low == pytest.approx(exact.low, rel=2e-3)
    assert ours.high == pytest.approx(exact.high, rel=2e-3)
    many = scores(100_000).clamp(-3, 3)
    wide = guarded(many, -3.0, 3.0)
    assert wide.low == pytest.approx(normal(many).low, abs=0.05 * wide.error)


def test_simultaneous_bounds_of_independent_scores_have_sidaks_width():
    x = scores(8 * 2000).view(8, 2000)
    found = simultaneous(x, resamples=5000)
    sidak = stats.norm.ppf(1 - (1 - 0.95 ** (1 / 8)) / 2)
    width = (found[0].high - found[0].value) / found[0].error
    assert width == pytest.approx(sidak, rel=0.04)
    same = simultaneous(x[:1].expand(8, -1), resamples=5000)  # eight copies cost nothing
    assert (same[3].high - same[3].value) / same[3].error == pytest.approx(1.96, rel=0.04)


def test_an_unknown_interval_names_the_nearest():
    with pytest.raises(InputError, match="bootstrap"):
        interval("boostrap", scores(5))
