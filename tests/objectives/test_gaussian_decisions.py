"""Ratios of Gaussian decisions against the formulas they are shorthand for."""

from __future__ import annotations

import pytest
import torch

from surpass.objectives.denoising import flow_levels, flow_noise, flow_step
from surpass.objectives.gaussian_decisions import (
    Drawn,
    center,
    mean_kl,
    normalized,
    per_stride,
    ratio_statistics,
    spread,
    standard,
)
from surpass.objectives.ratio import per_decision
from surpass.objectives.views import Steps

SPREAD = torch.tensor([0.5, 0.05], dtype=torch.float64)[
    None, :, None
]  # of an early and of a late step


def moved(n: int = 4, size: int = 6, by: float = 0.02, seed: int = 0):
    """Draws of an anchor [n, 2, size], and a policy whose means moved; log p are means."""
    g = torch.Generator().manual_seed(seed)
    old = torch.randn(n, 2, size, generator=g, dtype=torch.float64)
    new = old + by * torch.randn(n, 2, size, generator=g, dtype=torch.float64)
    x = old + SPREAD * torch.randn(n, 2, size, generator=g, dtype=torch.float64)
    normal = torch.distributions.Normal
    logps = [normal(mu, SPREAD).log_prob(x).mean(-1) for mu in (new, old)]
    d_new, d_old = (Drawn(x, mu, SPREAD, p) for mu, p in zip((new, old), logps, strict=True))
    extras = {
        "center": center(d_new), "standard": standard(d_new), "spread": spread(d_new),
        "anchor_center": center(d_old), "anchor_standard": standard(d_old),
        "ref_center": center(d_old), "stride": torch.tensor([0.2, 0.05]).double().expand(n, 2),
    }  # fmt: skip
    mask = torch.ones(n, 2, dtype=torch.float64)
    return Steps(logp=logps[0], anchor_logp=logps[1], mask=mask, extras=extras), new - old


def test_the_normalized_ratio_is_the_papers_formula():
    s, apart = moved()
    spread = SPREAD[..., 0]
    bias = apart.square().mean(-1) / (2 * spread.square())
    want = spread * (s.logp - s.anchor_logp + bias)
    torch.testing.assert_close(normalized()(s), want, rtol=1e-9, atol=1e-12)


def test_it_is_centered_and_of_one_scale_where_the_plain_ratio_is_not():
    s, apart = moved(n=40_000)
    plain = per_decision()(s)
    fair = normalized()(s)
    want = -apart.square().mean(-1).mean(0) / (2 * SPREAD[0, :, 0].square())
    torch.testing.assert_close(plain.mean(0), want, rtol=0.05, atol=4e-4)
    assert float(plain.std(0)[1] / plain.std(0)[0]) == pytest.approx(10, rel=0.06)
    assert float(fair.std(0)[1] / fair.std(0)[0]) == pytest.approx(1, rel=0.03)
    assert float((fair.mean(0).abs() / fair.std(0)).max()) < 0.02


def test_the_shared_statistics_say_so():
    s, _ = moved(n=4_000, by=0.1)
    a = torch.where(torch.arange(4_000) % 2 == 0, 1.0, -1.0)[:, None].expand(-1, 2)
    found = {}
    for name, ratio in (("plain", per_decision()), ("fair", normalized())):
        value = ratio(s)
        found[name] = ratio_statistics(s.filled(log_ratio=value, advantage=a), 0.02, 0.02)
        torch.testing.assert_close(found[name]["std"], value.std(0))
    late = found["plain"]["held_good"][1], found["plain"]["held_bad"][1]
    assert float(late[0]) < 0.3 * float(late[1])  # good samples are hardly ever held
    fair = found["fair"]
    torch.testing.assert_close(fair["held_good"], fair["held_bad"], rtol=0.15, atol=0.02)


def test_the_penalty_is_the_divergence_of_two_gaussians():
    s, apart = moved()
    ours, theirs = (torch.distributions.Normal(mu, SPREAD) for mu in (apart, 0.0 * apart))
    want = torch.distributions.kl_divergence(ours, theirs).mean(-1)
    torch.testing.assert_close(mean_kl()(s), want)
    torch.testing.assert_close(per_stride()(s), torch.tensor([5.0, 20.0]).double().expand(4, 2))


@pytest.mark.parametrize("constant", [False, True])
def test_noise_leaves_the_marginals_of_a_flow_where_they_are(constant):
    """Of data N(m, v) the velocity is linear in x, so mean and variance are followed exactly."""
    m, v, steps = 0.7, 0.09, 2_000
    levels = flow_levels(steps, 3.0).double()
    sigma = flow_noise(levels, 0.7, constant)
    mean, var = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for i in range(steps):
        s, h = levels[i], levels[i] - levels[i + 1]

        def velocity(x, s=s):  # E[data - noise | x]
            slope = ((1 - s) * v - s) / ((1 - s) ** 2 * v + s**2)
            return m + slope * (x - (1 - s) * m)

        at = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        wide = (t.expand(2) for t in (s, h, sigma[i]))
        found, std = flow_step(velocity(at), at, *wide)
        gain = found[1] - found[0]
        mean, var = found[0] + gain * mean, gain.square() * var + std[0].square()
        now = levels[i + 1]
        if i % 400 == 399:
            torch.testing.assert_close(mean[0], (1 - now) * m, rtol=0, atol=0.01)
            torch.testing.assert_close(var[0], (1 - now) ** 2 * v + now**2, rtol=0.03, atol=0.003)


def test_levels_are_shifted_toward_noise():
    torch.testing.assert_close(flow_levels(4), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    torch.testing.assert_close(flow_levels(2, 3.0), torch.tensor([1.0, 0.75, 0.0]))  # 3 u/(1 + 2 u)
    sigma = flow_noise(flow_levels(4), 0.7)
    torch.testing.assert_close(sigma[1:], 0.7 * torch.tensor([3.0, 1.0, 1 / 3]).sqrt())
    assert float(sigma[0]) == pytest.approx(0.7 * 2.0)  # 1 / (1 - 3/4)
