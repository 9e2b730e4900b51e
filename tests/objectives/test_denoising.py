"""Denoising against Gaussians, whose best denoisers and flows are formulas."""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from surpass.objectives import denoising as dn

MEAN, STD = 0.7, 0.4


def best_noise(abar, steps):
    """E[eps | x_k] for data N(MEAN, STD^2)."""

    def predict(x, time):
        a = abar[(time * steps).round().long() - 1][..., None]
        return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)

    return predict


def best_velocity(x, time):
    """E[x_1 - x_0 | x_t] for data N(MEAN, STD^2)."""
    t = time[..., None]
    slope = (t * STD**2 - (1 - t)) / ((1 - t).square() + (t * STD).square())
    return MEAN + slope * (x - t * MEAN)


def best_clean(x, sigma):
    """E[x | x + sigma eps] for data N(MEAN, STD^2)."""
    s = sigma[..., None].square()
    return (STD**2 * x + s * MEAN) / (STD**2 + s)


def noise(n=100_000, d=1, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_schedules_by_hand():
    beta = 1 - math.exp(-0.1 / 2 - 0.5 * 9.9 * 1 / 4), 1 - math.exp(-0.1 / 2 - 0.5 * 9.9 * 3 / 4)
    expected = [1 - beta[0], (1 - beta[0]) * (1 - beta[1])]
    assert dn.variance_preserving(2).tolist() == pytest.approx(expected, abs=1e-6)
    assert float(dn.variance_preserving(50)[-1]) == pytest.approx(
        math.exp(-0.1 - 0.5 * 9.9), rel=1e-4
    )
    cosine = dn.cosine_noise(4, 0.0)
    assert float(cosine[1]) == pytest.approx(math.cos(math.pi / 4) ** 2, abs=1e-6)
    assert float(cosine[3]) == pytest.approx(
        0.001 * float(cosine[2]), rel=1e-5
    )  # beta is cut off at 0.999
    levels = dn.edm_levels(5)
    assert [float(levels[i]) for i in (0, 4, 5)] == pytest.approx([80.0, 0.002, 0.0], rel=1e-4)


def test_the_linear_schedule_by_hand():
    found = dn.linear_noise(1000)
    assert float(found[0]) == pytest.approx(1 - 1e-4, rel=1e-6)
    assert float(found[-1] / found[-2]) == pytest.approx(1 - 0.02, rel=1e-4)
    assert dn.linear_noise(100)[:2].tolist() == pytest.approx([0.999, 0.999 * (0.999 - 0.199 / 99)])


def test_one_pass_of_the_best_denoiser_is_the_posterior_mean():
    """E[x | x_k] of a Gaussian: (sqrt(a) s^2 x_k + (1 - a) m) / (a s^2 + 1 - a)."""
    abar = dn.linear_noise(20).double()
    x, eps = (MEAN + STD * noise(200)).double(), noise(200, seed=3).double()
    level = torch.arange(200) % 20
    guess, clean = dn.one_pass(best_noise(abar, 20), x, abar, level, eps)
    a = abar[level][:, None]
    noisy = a.sqrt() * x + (1 - a).sqrt() * eps
    wanted = (a.sqrt() * STD**2 * noisy + (1 - a) * MEAN) / (a * STD**2 + 1 - a)
    torch.testing.assert_close(clean, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.sqrt() * clean + (1 - a).sqrt() * guess, noisy)
    clipped = dn.one_pass(best_noise(abar, 20), x, abar, level, eps, clip=0.5)[1]
    assert torch.equal(clipped, clean.clamp(-0.5, 0.5))


def test_the_solver_of_second_order_errs_less_by_the_square_of_its_steps():
    """For a Gaussian the flow of x is a map: x_K at z deviations from its mean ends at as many."""
    abar = dn.variance_preserving(4097).double()
    z = torch.tensor([[-1.5], [0.4], [2.0]], dtype=torch.float64)
    first, last = ((a.sqrt() * MEAN, (a * STD**2 + 1 - a).sqrt()) for a in abar[[-1, 0]])
    predict = best_noise(abar, 4097)
    start, arrived = first[0] + first[1] * z, last[0] + last[1] * z
    guess = predict(arrived, torch.full((3,), 1 / 4097, dtype=torch.float64))
    wanted = (arrived - (1 - abar[0]).sqrt() * guess) / abar[0].sqrt()

    def error(order, steps):
        found = dn.implicit(predict, start, abar, dn.even_levels(abar, steps), order=order)
        return float((found - wanted).abs().max())

    assert error(1, 17) / error(1, 33) == pytest.approx(2.0, rel=0.15)
    assert error(2, 17) / error(2, 33) == pytest.approx(4.0, rel=0.15)
    assert error(2, 33) < 0.1 * error(1, 33)


def test_even_levels_run_from_the_last_to_the_first_at_even_distances():
    abar = dn.variance_preserving(1000)
    levels = dn.even_levels(abar, 11)
    ahead = 0.5 * (abar.log() - (1 - abar).log())[list(levels)]
    assert levels[0] == 999 and levels[-1] == 0 and len(levels) == 11
    assert (ahead.diff() / (ahead[-1] - ahead[0])).tolist() == pytest.approx([0.1] * 10, abs=0.05)
    assert dn.even_levels(dn.variance_preserving(3), 15) == (2, 1, 0)


def test_the_best_denoiser_leaves_the_posterior_variance_and_nothing_leaves_less():
    abar = dn.variance_preserving(10)
    torch.manual_seed(0)
    x = MEAN + STD * noise()
    best = best_noise(abar, 10)
    left = (abar * STD**2 / (abar * STD**2 + 1 - abar)).mean()
    losses = {s: float(dn.noise_loss(lambda x, t, s=s: s * best(x, t), x, abar).mean())
              for s in (0.8, 1.0, 1.2)}  # fmt: skip
    assert losses[1.0] == pytest.approx(float(left), rel=0.02)
    assert losses[1.0] < min(losses[0.8], losses[1.2])


@pytest.mark.parametrize("kind", ["ancestral", "implicit", "euler", "edm", "edm with churn"])
def test_every_sampler_gives_back_the_gaussian(kind):
    torch.manual_seed(1)
    start, abar = noise(), dn.variance_preserving(400)
    x = {
        "ancestral": lambda: dn.ancestral(best_noise(abar, 400), start, abar),
        "implicit": lambda: dn.implicit(
            best_noise(abar, 400), dn.diffused(MEAN + STD * noise(seed=2), abar[-1], start), abar
        ),
        "euler": lambda: dn.euler(best_velocity, start, 200),
        "edm": lambda: dn.edm_sample(best_clean, start, dn.edm_levels(40)),
        "edm with churn": lambda: dn.edm_sample(best_clean, start, dn.edm_levels(80), churn=40.0),
    }[kind]()
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(STD, abs=0.02)


def test_deterministic_samplers_are_functions_of_the_noise_and_keep_its_order():
    abar = dn.variance_preserving(20)
    start = torch.linspace(-2, 2, 9)[:, None]
    for sample in (
        lambda: dn.implicit(best_noise(abar, 20), start, abar, steps=8),
        lambda: dn.euler(best_velocity, start, 8),
    ):
        first, second = sample(), sample()
        assert torch.equal(first, second) and bool((first.diff(dim=0) > 0).all())


def test_implicit_steps_on_a_known_clean_point_land_on_it():
    """With the noise of one point as the net's answer, every step must point at that point."""
    abar, point = dn.variance_preserving(50), torch.tensor([[0.3, -0.2]])

    def predict(x, time):
        a = abar[(time * 50).round().long() - 1][..., None]
        return (x - a.sqrt() * point) / (1 - a).sqrt()

    for steps in (1, 2, 7, 50):
        torch.testing.assert_close(dn.implicit(predict, noise(1, 2), abar, steps), point)


def test_samplers_can_stand_in_a_traced_update():
    abar, start = dn.variance_preserving(6), torch.linspace(-2, 2, 5)[:, None]
    for sample in (
        lambda x, abar: dn.implicit(best_noise(abar, 6), x, abar, steps=3),
        lambda x, abar: dn.euler(best_velocity, x, 3),
    ):
        traced = make_fx(sample, tracing_mode="fake")(start, abar)
        torch.testing.assert_close(traced(start, abar), sample(start, abar))


def test_clipping_bounds_what_samplers_give():
    abar = dn.variance_preserving(10)
    wild = lambda x, t: -50.0 * torch.ones_like(x)  # noqa: E731
    assert float(dn.ancestral(wild, noise(50), abar, clip=1.0).abs().max()) <= 1.0
    assert float(dn.implicit(wild, noise(50), abar, clip=1.0).abs().max()) <= 1.0
    assert float(dn.euler(wild, noise(50), 4, clip=1.0).abs().max()) <= 1.0


def test_the_best_velocity_minimizes_its_loss():
    x, losses = MEAN + STD * noise(), {}
    for shift in (-0.3, 0.0, 0.3):
        torch.manual_seed(0)
        wrong = dn.velocity_loss(lambda x, t, s=shift: best_velocity(x, t) + s, x)
        losses[shift] = float(wrong.mean())
    assert losses[-0.3] == pytest.approx(losses[0.0] + 0.09, abs=0.01)
    assert losses[0.3] == pytest.approx(losses[0.0] + 0.09, abs=0.01)


def test_density_of_a_flow_is_exact():
    """One linear step x + (a x + b) / 1 of N(0, 1) is N(b, (1 + a)^2)."""
    predict = lambda x, t: 0.5 * x + 0.3  # noqa: E731
    x, logp = dn.euler_logp(predict, noise(7), 1)
    expected = torch.distributions.Normal(0.3, 1.5).log_prob(x[:, 0])
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(dn.euler_inverse(predict, x, 1)[1], expected, rtol=1e-4, atol=1e-4)


def test_density_of_a_curved_flow_integrates_to_one_and_inverts():
    predict = lambda x, t: torch.sin(2 * x) + t[..., None] * x.flip(-1)  # noqa: E731
    start = noise(20, 2)
    x, logp = dn.euler_logp(predict, start, 8)
    back, same = dn.euler_inverse(predict, x, 8)
    torch.testing.assert_close(back, start, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(same, logp, rtol=1e-3, atol=1e-3)
    axis = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(axis, axis)
    mass = dn.euler_inverse(predict, grid, 8, 25)[1].exp().sum() * 0.1**2
    assert float(mass) == pytest.approx(1.0, abs=0.01)


def test_path_likelihood_is_normalized():
    """Importance sampling from the path's own law against another joint Gaussian of the path."""
    torch.manual_seed(7)
    drift = lambda x, t: -1.2 * x + 0.4  # noqa: E731
    x, logp = dn.noisy_euler(drift, noise(50_000), 1, 0.6)
    other = torch.distributions.Normal(0.2, 0.5).log_prob(x[:, 0])
    start = noise(50_000)[:, 0]  # the path's first point
    conditional = torch.distributions.Normal(-0.2 * start + 0.4, 0.6).log_prob(x[:, 0])
    base = torch.distributions.Normal(0.0, 1.0).log_prob(start)
    torch.testing.assert_close(logp, base + conditional)
    weight = (other - conditional).exp()
    assert float(weight.mean()) == pytest.approx(1.0, abs=0.05)


def test_guidance_extrapolates_between_its_ends():
    null, conditional = (lambda x, t: x), (lambda x, t: 3.0 * x)
    x, t = noise(5), torch.zeros(5)
    for weight, factor in ((0.0, 1.0), (1.0, 3.0), (2.0, 5.0)):
        torch.testing.assert_close(dn.guided(null, conditional, weight)(x, t), factor * x)


def test_guided_velocities_of_two_gaussians_move_the_mean_linearly():
    """Equal spreads: velocities differ by a shift of m_c - m_0 times the same path, so weight w
    samples N(m_0 + w (m_c - m_0), STD^2)."""
    at = lambda mean: lambda x, t: best_velocity(x - t[..., None] * (mean - MEAN), t) + mean - MEAN  # noqa: E731
    x = dn.euler(dn.guided(at(0.0), at(0.5), 3.0), noise(), 100)
    assert float(x.mean()) == pytest.approx(1.5, abs=0.02)
    assert float(x.std()) == pytest.approx(STD, abs=0.02)


def test_edm_preconditioning_has_unit_scales():
    """The net's input has variance 1, and its best answer too, at every noise level."""
    torch.manual_seed(0)
    x, seen = noise(200_000), {}
    for level in (0.01, 1.0, 30.0):
        sigma = torch.full((len(x),), level)
        noisy = x + level * noise(200_000, seed=2)

        def net(y, c, level=level):
            seen[level] = float(y.std()), float(c[0])
            return torch.zeros_like(y)

        skip = dn.edm_denoiser(net)(noisy, sigma)
        wanted = (x - skip) / (level / math.sqrt(level**2 + 1))
        assert seen[level] == pytest.approx((1.0, math.log(level) / 4), abs=0.01)
        assert float(wanted.std()) == pytest.approx(1.0, abs=0.01)


def test_edm_loss_is_least_for_the_best_denoiser():
    torch.manual_seed(0)
    x = MEAN + STD * noise()
    losses = {s: float(dn.edm_loss(lambda x, g, s=s: best_clean(x, g) + s, x).mean())
              for s in (-0.1, 0.0, 0.1)}  # fmt: skip
    assert losses[0.0] < min(losses[-0.1], losses[0.1])


def test_the_guide_is_not_asked_before_the_last_step():
    asked = []
    dn.edm_sample(
        best_clean, noise(3), dn.edm_levels(6), guide=lambda x, i: (asked.append(i), x)[1]
    )
    assert asked == [0, 1, 2, 3, 4]


# ----------------------------------------------------------------------------------------------
# guidance by a value: three narrow modes at -2, 0 and 1, and a critic with a bump between two

MODES, NARROW = torch.tensor([-2.0, 0.0, 1.0]), 0.1


def modes_velocity(x, time):
    """(E[x_1 | x_t] - x_t) / (1 - t) for data of even shares N(m, NARROW^2)."""
    t = time[..., None]
    spread = (1 - t).square() + (t * NARROW).square()
    share = torch.softmax(-0.5 * (x - t * MODES).square() / spread, -1)
    clean = MODES + t * NARROW**2 / spread * (x - t * MODES)
    return ((share * clean).sum(-1, keepdim=True) - x) / (1 - t)


def bumped(a):
    """The slope of -(a - 1)^2 / 2 + 3 exp(-(a + 1)^2 / (2 0.35^2))."""
    bump = 3.0 * torch.exp(-0.5 * ((a + 1.0) / 0.35).square())
    return -(a - 1.0) - bump * (a + 1.0) / 0.35**2


@pytest.mark.parametrize(
    "at, rewards, astray, within",
    [
        ("clean", (-2.04, -0.98, -0.61), (0.11, 0.08, 0.01), 0.05),
        ("noisy", (-3.09, -2.45, -1.74), (0.41, 0.43, 0.44), 0.2),
        ("through", (-2.01, -1.86, -1.14), None, 0.2),
    ],
)
def test_guidance_at_the_clean_end_is_not_caught_between_modes(at, rewards, astray, within):
    """The means of -(a - 1)^2 and the shares further than 0.35 from every mode, for weights 0.25,
    0.5 and 1, against another simulation's."""
    for i, weight in enumerate((0.25, 0.5, 1.0)):
        a = dn.value_guided(modes_velocity, bumped, noise(20_000), 10, weight, at)
        assert float(-(a - 1.0).square().mean()) == pytest.approx(rewards[i], abs=within)
        if astray is not None:
            far = ((a - MODES).abs().min(-1).values > 0.35).float().mean()
            assert float(far) == pytest.approx(astray[i], abs=0.03)


def test_guidance_through_the_velocity_is_the_gradient_of_the_value_of_the_end():
    """One step of two at t = 0 and the second at t = 1/2, by automatic differentiation."""
    x, weight = noise(50), 0.3
    step = x
    for t in (0.0, 0.5):
        at = step.detach().requires_grad_()
        velocity = best_velocity(at, torch.full((50,), t))
        value = -0.5 * (at + (1 - t) * velocity - 1.0).square()
        (slope,) = torch.autograd.grad(value.sum(), at)
        step = (at + (velocity + weight * slope) / 2).detach()
    with torch.no_grad():
        found = dn.value_guided(best_velocity, lambda a: 1.0 - a, x, 2, weight, "through")
    torch.testing.assert_close(found, step, rtol=1e-4, atol=1e-5)
