"""Guides of a diffusion policy by the action that one pass gives, against numbers by hand."""

import math

import pytest
import torch

from surpass.forms import Spaces
from surpass.objectives.denoising import variance_preserving
from surpass.objectives.one_pass import climbing, one_pass, over_estimate, regressing
from surpass.objectives.rows import Rows
from surpass.objectives.value import ascend
from surpass.objectives.weights import exponential
from surpass.policies.diffusion import diffusion


class Twins:
    """Q_1 = sum a, Q_2 = 3 sum a."""

    def __call__(self, obs, action):
        return torch.stack([action.sum(-1), 3.0 * action.sum(-1)])


class Draws:
    """pi(a|s) = a point that has a gradient."""

    def __init__(self):
        self.point = torch.tensor([[0.5], [-0.25]], requires_grad=True)

    def sample(self, obs):
        return self.point, None


ROWS = Rows({
    "obs": torch.zeros(2, 3), "action": torch.tensor([[0.5, 0.1], [0.0, -0.2]]),
    "clean": torch.tensor([[0.3, 0.1], [-0.4, 0.2]]),
})  # fmt: skip


def test_climbing_is_scaled_by_the_mean_size_of_the_critic_it_climbs():
    """|Q_i| is 0.4 and 0.2 times 1 or 3: both critics give the same numbers."""
    for seed in range(4):
        torch.manual_seed(seed)
        found = climbing(2.0)({"q": Twins()}, ROWS)
        assert found.tolist() == pytest.approx([-2 * 0.4 / 0.3, 2 * 0.2 / 0.3])


def test_ascent_divides_by_the_size_of_the_other_critic_and_a_coin_decides():
    """Mean |Q| is 0.375 and 1.125: -Q_1 / 1.125 or -Q_2 / 0.375, whose slopes are 9 to 1."""
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        pi = Draws()
        loss = ascend(2.0)({"q": Twins(), "pi": pi}, ROWS)
        (slope,) = torch.autograd.grad(loss.sum(), pi.point)
        assert slope[0] == slope[1]
        seen.add(round(float(slope[0]), 4))
    assert seen == {round(-2 / 1.125, 4), round(-2 * 3 / 0.375, 4)}


def test_regressing_is_a_weighted_normal_likelihood_of_unit_deviation():
    weight = exponential(lambda nets, rows: torch.tensor([0.0, math.log(3.0)]), 1.0, 20.0)
    found = regressing(weight)({}, ROWS)
    normal = torch.distributions.Normal(ROWS.clean, 1.0).log_prob(ROWS.action).sum(-1)
    wanted = -torch.tensor([1.0, 3.0]) * (normal + math.log(2 * math.pi))
    torch.testing.assert_close(found, wanted)


def test_the_advantage_is_over_draws_around_the_estimate():
    """Q_1 is the lower where the sum is positive; Q is linear, so many draws average to Q(clean)
    but for the kink at 0: E min(S, 3 S) = m - 2 E max(-S, 0), S ~ N(m, 2)."""
    torch.manual_seed(0)
    found = over_estimate(200_000)({"q": Twins()}, ROWS)
    for i in range(2):
        m, sd = float(ROWS.clean[i].sum()), math.sqrt(2.0)
        below = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-m / sd)).item()
        density = math.exp(-0.5 * (m / sd) ** 2) / math.sqrt(2 * math.pi)
        expected = m - 2 * (sd * density - m * below)
        here = float(ROWS.action[i].sum())
        assert float(found[i]) == pytest.approx(min(here, 3 * here) - expected, abs=0.02)


def test_the_loss_reaches_the_net_through_one_pass_and_its_terms_add_up():
    torch.manual_seed(0)
    pi = diffusion(8, 16, 1, schedule="linear")(Spaces(3, 2))
    guide = regressing(lambda nets, rows: torch.ones(2))
    torch.manual_seed(1)
    terms = one_pass(guide, 0.5)({"pi": pi}, ROWS)
    torch.manual_seed(1)
    error, clean = pi.one_pass(ROWS.obs, ROWS.action)
    assert torch.equal(terms["denoise"], error)
    half = 0.25 * (ROWS.action - clean).square().sum(-1)
    torch.testing.assert_close(terms["guide"], half)
    terms["guide"].sum().backward()
    assert all(p.grad is not None for p in pi.net.parameters())


# ----------------------------------------------------------------------------------------------
# where the loss of a policy N(m, S^2) is stationary in m, for logged actions N(M, S^2): with
# spread = a S^2 + 1 - a, the noise's guess has slope -c = -sqrt(a (1 - a)) / spread in m, and the
# estimate has slope h = (1 - a) / spread and mean error h (m - a_logged)

M, S, LEVELS = 0.2, 0.1, 6
ABAR = variance_preserving(LEVELS)
SPREAD = ABAR * S**2 + 1 - ABAR
C2 = float((ABAR * (1 - ABAR) / SPREAD.square()).mean())
H, H2 = float(((1 - ABAR) / SPREAD).mean()), float(((1 - ABAR) / SPREAD).square().mean())


class Guess(torch.nn.Module):
    """E[eps | x_k] for actions N(m, S^2)."""

    def __init__(self, m):
        super().__init__()
        self.m = torch.nn.Parameter(torch.tensor(m))

    def at(self, obs, label=0):
        def predict(x, time):
            a = ABAR[(time * LEVELS).round().long() - 1][:, None]
            return (1 - a).sqrt() * (x - a.sqrt() * self.m) / (a * S**2 + 1 - a)

        return predict


def slope(guide, m, nets=None, weight=0.7, n=200_000):
    pi = diffusion(LEVELS, 8)(Spaces(1, 1))
    pi.net = Guess(m)
    torch.manual_seed(0)
    rows = Rows({"obs": torch.zeros(n, 1), "action": M + S * torch.randn(n, 1)})
    terms = one_pass(guide, weight)({"pi": pi, **(nets or {})}, rows)
    (terms["denoise"].mean() + terms["guide"].mean()).backward()
    return float(pi.net.m.grad)


def weight_of(nets, rows):
    return (rows.action[:, 0] / S).exp()


def test_regression_on_the_estimate_moves_the_policy_to_the_weighted_mean():
    """E[w] = exp(M / S + 1 / 2), and under w the actions are N(M + S, S^2)."""
    w = math.exp(M / S + 0.5)
    best = (2 * C2 * M + 0.7 * H2 * w * (M + S)) / (2 * C2 + 0.7 * H2 * w)
    off = slope(regressing(weight_of), best + 0.05)
    assert slope(regressing(weight_of), best) == pytest.approx(0.0, abs=0.05 * off)
    assert off == pytest.approx(0.05 * (2 * C2 + 0.7 * H2 * w), rel=0.05)


def test_climbing_by_the_estimate_moves_the_policy_until_denoising_holds_it():
    """Q_1 = Q_2 = a + 2: 2 c^2 (m - M) = weight alpha h / (2 + E[estimate]), whose mean is
    M + E[h] (m - M)."""

    def q(obs, action):
        return (action[..., 0] + 2.0).expand(2, -1)

    low, high = M, 1.0
    for _ in range(50):  # by bisection
        best = 0.5 * (low + high)
        held = 2 * C2 * (best - M) - 0.7 * 0.1 * H / (2 + M + H * (best - M))
        low, high = (low, best) if held > 0 else (best, high)
    off = slope(climbing(0.1), best + 0.05, {"q": q})
    assert best > M + 0.005
    assert slope(climbing(0.1), best, {"q": q}) == pytest.approx(0.0, abs=0.05 * off)
