"""Diffusion and flow policies: what they must share with Gaussians, labels and known densities."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.policies.acting import best_of
from surpass.policies.diffusion import diffusion, energy_diffusion
from surpass.policies.flow import ClimbingFlow, Flow, GuidedFlow, flow
from surpass.policies.recurrent_flow import recurrent_flow
from surpass.policies.residual import correction
from surpass.policies.selecting import (
    expectile_weight,
    exponential_weight,
    quantile_weight,
    reweighted,
    softmax_of,
)

SPACES = Spaces(3, 2, 0, (-1.0, -1.0), (1.0, 1.0))


class LinearVelocity(torch.nn.Module):
    """v = (shift of the label) - x / 2, whatever the observation."""

    def at(self, obs, label=0):
        shift = torch.tensor([0.0, 0.4])[label]
        return lambda x, time: shift - 0.5 * x


def test_density_of_a_flow_policy_is_that_of_its_linear_flow():
    """Two steps x <- 0.75 x give N(0, 0.75^4)."""
    pi, action = Flow(LinearVelocity(), 2, 2), torch.tensor([[0.3, -0.5], [0.0, 0.9]])  # type: ignore
    expected = torch.distributions.Normal(0.0, 0.75**2).log_prob(action).sum(-1)
    torch.testing.assert_close(pi.logp(torch.zeros(2, 3), action), expected, rtol=1e-4, atol=1e-4)


def test_guidance_of_a_flow_policy_moves_beyond_its_label():
    """x <- x + (w shift - x / 2) / F converges to what shift w sends it to."""
    pi, obs = Flow(LinearVelocity(), 1, 20), torch.zeros(4000, 3)  # type: ignore[arg-type]
    torch.manual_seed(0)
    middle = [float(GuidedFlow(pi, w, 1).act(obs).action.median()) for w in (0.0, 1.0, 2.0)]
    sent = 0.4 * (1 - (1 - 0.5 / 20) ** 20) / 0.5
    assert middle == pytest.approx([0.0, sent, 2 * sent], abs=0.05)
    again = GuidedFlow(pi, 1.0, 1).given(weight=0.0)
    assert float(again.act(obs).action.median()) == pytest.approx(0.0, abs=0.05)


class Bowls:
    """Twins of mean value -(a - 0.8)^2 / 4, the one three times the other."""

    def action_gradients(self, obs, action):
        slope = 0.4 - 0.5 * action
        return torch.stack([0.5 * slope, 1.5 * slope])


@pytest.mark.parametrize(
    "at, kept, moved",
    [("clean", 0.625 * 0.5625, 0.5625 * 0.2 + 0.2), ("noisy", 0.25, 0.3), ("through", None, None)],
)
def test_a_flow_climbs_a_critic_from_where_it_is_asked(at, kept, moved):
    """Two steps of v = -x / 2 to a from noise x, by hand: the clean actions are x / 2 at t = 0 and
    3 x / 4 at t = 1/2, which are also the factors of the exact gradient."""
    pi, obs = Flow(LinearVelocity(), 1, 2), torch.zeros(50, 3)  # type: ignore[arg-type]
    torch.manual_seed(0)
    x = pi.noise(obs)
    if at == "through":
        first = x + 0.5 * (-0.5 * x + 0.5 * (0.4 - 0.5 * 0.5 * x))
        expected = first + 0.5 * (-0.5 * first + 0.75 * (0.4 - 0.5 * 0.75 * first))
    else:
        expected = kept * x + moved
    torch.manual_seed(0)
    policy = ClimbingFlow(pi, Bowls(), 0.0).given(weight=1.0, at=at)
    torch.testing.assert_close(policy.act(obs).action, expected.clamp(-1.0, 1.0))
    torch.manual_seed(0)
    unmoved = policy.given(weight=0.0).act(obs).action
    torch.testing.assert_close(unmoved, pi.decode(obs, x))


def test_a_place_where_no_critic_can_be_asked_is_named():
    with pytest.raises(InputError, match="'start', which is nowhere; take one of clean, noisy"):
        ClimbingFlow(Flow(LinearVelocity(), 1, 2), Bowls(), 1.0, "start")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [diffusion(6, 16), flow(6, 16)])
def test_decoding_is_a_function_of_the_noise_row_by_row(make):
    torch.manual_seed(0)
    pi, obs, noise = make(SPACES), torch.randn(5, 3), torch.randn(5, 2)
    once, twice = pi.decode(obs, noise), pi.decode(obs, noise)
    assert torch.equal(once, twice)
    torch.testing.assert_close(pi.decode(obs[2:3], noise[2:3])[0], once[2], rtol=1e-5, atol=1e-6)
    several = pi.decode(obs, noise.expand(4, 5, 2))
    torch.testing.assert_close(several[3], once, rtol=1e-5, atol=1e-6)


class GaussianNoise(torch.nn.Module):
    """E[eps | x_k] for actions N(0.3, 0.2^2)."""

    def __init__(self, abar):
        super().__init__()
        self.abar = abar

    def at(self, obs, label=0):
        def predict(x, time):
            a = self.abar[(time * len(self.abar)).round().long() - 1][..., None]
            return (1 - a).sqrt() * (x - a.sqrt() * 0.3) / (a * 0.04 + 1 - a)

        return predict


def test_the_fast_sampler_gives_in_few_steps_what_all_levels_give():
    torch.manual_seed(0)
    pi = diffusion(100, 8, schedule="linear", fast=15)(SPACES)
    pi.net = GaussianNoise(pi.abar)
    drawn = pi.sample(torch.zeros(20_000, 3))[0]
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.2, abs=0.005)


def test_noise_is_judged_at_levels_of_the_asked_shares():
    torch.manual_seed(0)
    pi = diffusion(1000, 8, schedule="vp-20")(SPACES)
    obs, action = torch.zeros(5000, 3), torch.full((5000, 2), 0.4)
    guess, noise, abar = pi.noise_at(obs, action, 0.02, 0.98)
    assert float(abar.max()) == pytest.approx(float(pi.abar[20]), rel=1e-3)
    assert float(abar.min()) == pytest.approx(float(pi.abar[979]), rel=0.05)
    t = 0.5  # log alpha_t = -t^2 (20 - 0.1) / 4 - 0.1 t / 2
    alpha = math.exp(-0.25 * t**2 * 19.9 - 0.05 * t)
    assert float(pi.abar[499]) == pytest.approx(alpha**2, rel=1e-4)
    level = (pi.abar[None] - abar[:3, None]).abs().argmin(-1)
    noisy = abar[:3, None].sqrt() * action[:3] + (1 - abar[:3, None]).sqrt() * noise[:3]
    torch.testing.assert_close(pi.net(noisy, (level + 1) / 1000, obs[:3]), guess[:3],
                               rtol=1e-4, atol=1e-5)  # fmt: skip


def test_the_slope_of_the_energy_is_the_guess_of_the_noise():
    """eps = -sigma_t df / da_t, by finite differences; the density that `decode` follows."""
    torch.manual_seed(0)
    pi = energy_diffusion(100, 16, 2)(SPACES).double()
    obs, x = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    level = torch.tensor([0, 5, 20, 50, 80, 99])
    guess = pi.net(x, (level + 1) / 100, obs)
    for k, step in enumerate(1e-5 * torch.eye(2).double()):
        slope = (pi.energy(obs, x + step, level) - pi.energy(obs, x - step, level)) / 2e-5
        torch.testing.assert_close(guess[:, k], -(1 - pi.abar[level]).sqrt() * slope,
                                   rtol=1e-4, atol=1e-7)  # fmt: skip
    several = pi.energy(obs, x.expand(4, 6, 2), level)
    torch.testing.assert_close(several, pi.energy(obs, x, level).expand(4, 6))


def test_candidates_of_a_row_share_the_level_and_not_the_noise():
    torch.manual_seed(0)
    pi, action = energy_diffusion(1000, 8, 1)(SPACES), torch.full((50, 300, 2), 0.5)
    noisy, level = pi.disturbed(action)
    abar = pi.abar[level]
    assert level.shape == (300,) and len(level.unique()) > 200
    eps = (noisy - 0.5 * abar.sqrt()[:, None]) / (1 - abar).sqrt()[:, None]
    torch.testing.assert_close(eps.std((0, 2)), torch.ones(300), rtol=0.0, atol=0.35)
    assert float(eps.mean(0).abs().mean()) < 0.2


def test_labels_change_what_a_net_is_asked():
    torch.manual_seed(0)
    pi, obs, x = flow(4, 16, labels=3)(SPACES), torch.randn(6, 3), torch.randn(6, 2)
    time = torch.full((6,), 0.5)
    by_number = [pi.net(x, time, obs, k) for k in range(3)]
    by_row = pi.net(x, time, obs, torch.tensor([0, 1, 2, 0, 1, 2]))
    for row, k in enumerate([0, 1, 2, 0, 1, 2]):
        torch.testing.assert_close(by_row[row], by_number[k][row])
    assert not torch.allclose(by_number[0], by_number[1])


def test_a_correction_is_nothing_at_first_and_keeps_its_spread():
    torch.manual_seed(0)
    pi = correction((16,), log_std=-1.0)(SPACES)
    assert float(pi(torch.randn(5, 3)).abs().max()) == 0.0
    assert {name for name, _ in pi.named_parameters()} == {
        f"net.layers.{i}.{what}" for i in (0, 1) for what in ("weight", "bias")
    }
    logp = pi.logp(torch.zeros(1, 3), torch.tensor([[0.1, -0.2]]))
    normal = torch.distributions.Normal(0.0, math.exp(-1.0))
    torch.testing.assert_close(logp[0], normal.log_prob(torch.tensor([0.1, -0.2])).sum())


def test_generative_policies_refuse_discrete_actions():
    for make in (diffusion(), energy_diffusion(), flow(), recurrent_flow()):
        with pytest.raises(InputError, match="discrete"):
            make(Spaces(3, n_actions=2))
    with pytest.raises(InputError, match="no noise schedule"):
        diffusion(schedule="square")(SPACES)


# ----------------------------------------------------------------------------------------------
# choosing among samples


class FourActions:
    """Proposes -1, 0, 0.5, 1 in a random order; Q = a, V = 0.25."""

    def sample(self, obs, n):
        order = torch.stack([torch.randperm(4) for _ in range(len(obs))], 1)
        return torch.tensor([-1.0, 0.0, 0.5, 1.0])[order][..., None], None


NETS = {
    "pi": FourActions(),
    "q_target": lambda obs, a: torch.stack([a[..., 0], a[..., 0] + 1]),
    "v": lambda obs: torch.full((1, len(obs)), 0.25),
}


def test_the_best_and_the_lowest_of_what_is_proposed():
    obs = torch.zeros(3, 1)
    for lowest, expected in ((False, 1.0), (True, -1.0)):
        policy = best_of("pi", "q_target", 4, lowest=lowest)(NETS, {})  # type: ignore[arg-type]
        assert policy.act(obs).action[:, 0].tolist() == [expected] * 3


def test_reweighting_draws_in_proportion_to_the_weight():
    """Weights 0.1, 0.1, 0.9, 0.9 of an expectile at tau = 0.9."""
    torch.manual_seed(0)
    policy = reweighted(expectile_weight(0.9), 4)(NETS, {})  # type: ignore[arg-type]
    drawn = policy.act(torch.zeros(20_000, 1)).action[:, 0]
    for value, share in ((-1.0, 0.05), (0.0, 0.05), (0.5, 0.45), (1.0, 0.45)):
        assert float((drawn == value).float().mean()) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    "weight, slope",
    [
        (expectile_weight(0.7), lambda u: 2 * torch.where(u < 0, 0.3, 0.7) * u.abs()),
        (quantile_weight(0.7), lambda u: torch.where(u < 0, 0.3, 0.7)),
        (exponential_weight(2.0), lambda u: (2 * torch.exp(2 * u) - 2).abs()),
    ],
)
def test_weights_are_the_slopes_of_their_losses_over_the_distance(weight, slope):
    u = torch.tensor([-1.5, -0.2, 0.3, 2.0])
    found, expected = weight(u) * u.abs(), slope(u)
    torch.testing.assert_close(found / found.sum(), expected / expected.sum())


def test_under_the_weights_of_an_expectile_the_mean_advantage_is_zero():
    """V is the 0.9-expectile of Q exactly where the weighted mean of Q - V vanishes."""
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    v = torch.tensor(0.0)
    for _ in range(200):
        v = v + 0.5 * (expectile_weight(0.9)(values - v) * (values - v)).mean()
    weight = expectile_weight(0.9)(values - v)
    assert float((weight * (values - v)).mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(v) == pytest.approx(0.8614, abs=0.02)  # the 0.9-expectile of N(0, 1)


def test_energies_are_drawn_by_their_softmax():
    """exp(a / T) over -1, 0, 0.5, 1 at T = 0.5."""
    torch.manual_seed(0)
    policy = softmax_of(4, 0.5, q="q_target")(NETS, {})  # type: ignore[arg-type]
    drawn = policy.act(torch.zeros(20_000, 1)).action[:, 0]
    places = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    for value, share in zip(places, (places / 0.5).softmax(0), strict=True):
        assert float((drawn == value).float().mean()) == pytest.approx(float(share), abs=0.015)
