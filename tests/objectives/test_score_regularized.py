"""The slope of SRPO against a Gaussian behavior, whose score is a formula."""

import pytest
import torch

from surpass.errors import InputError
from surpass.objectives.denoising import noise_guess, variance_preserving
from surpass.objectives.rows import Rows
from surpass.objectives.score_regularized import score_regularized

MEAN, STD, LEVELS = 0.3, 0.2, 1000
ABAR = variance_preserving(LEVELS, high=20.0)


class Behavior:
    """N(MEAN, STD^2) in each dimension: the best guess of its noise."""

    def noise_at(self, obs, action, low, high):
        share = low + (high - low) * torch.rand(len(action))
        level, noise = (share * LEVELS).long(), torch.randn_like(action)

        def predict(x, time):
            a = ABAR[(time * LEVELS).round().long() - 1][:, None]
            return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)

        return noise_guess(predict, action, ABAR, level, noise), noise, ABAR[level]


class Linear:
    """Twins of mean slope (1, 3)."""

    def action_gradients(self, obs, action):
        slope = torch.tensor([1.0, 3.0]).expand(action.shape)
        return torch.stack([0.5 * slope, 1.5 * slope])


def slope_at(a, n=200_000, **hyper):
    """The gradient of the loss with respect to the policy's action: mean and deviation."""
    torch.manual_seed(0)
    action = torch.full((n, 2), a, requires_grad=True)
    nets = {"mu": Behavior(), "q_target": Linear(), "pi": lambda obs: action}
    loss = score_regularized(**hyper)(nets, Rows({"obs": torch.zeros(n, 1)}))  # type: ignore
    (slope,) = torch.autograd.grad(loss.sum(), action)
    return slope.mean(0), slope.std(0)


def exact(a, omega):
    """E_t[omega sigma alpha (a - m) / (alpha^2 s^2 + sigma^2)]."""
    abar = ABAR[20:980]
    weight = {"variance": 1 - abar, "one": torch.ones(960), "score": (abar / (1 - abar)).sqrt()}
    scale = (abar * (1 - abar)).sqrt() / (abar * STD**2 + 1 - abar)
    return float((weight[omega] * scale).mean()) * (a - MEAN)


@pytest.mark.parametrize("omega", ["variance", "one", "score"])
def test_the_pull_is_the_slope_of_the_divergence_minus_that_of_the_critic(omega):
    found, _ = slope_at(0.8, omega=omega, beta=0.1)
    wanted = exact(0.8, omega) - 0.1 * torch.tensor([1.0, 3.0])
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=0.01)


def test_subtracting_the_noise_changes_the_spread_and_not_the_mean():
    (mean, narrow), (other, wide) = (slope_at(0.8, centered=c, omega="one") for c in (True, False))
    torch.testing.assert_close(mean, other, rtol=0.0, atol=0.01)
    assert (narrow < 0.8 * wide).all()


def test_a_unit_slope_has_root_mean_square_one():
    found, _ = slope_at(MEAN, unit=True, beta=1.0)
    wanted = -torch.tensor([1.0, 3.0]) / 5.0**0.5
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=0.01)


def test_a_weight_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="no weight over noise 'sigma'; there are variance"):
        slope_at(0.0, n=2, omega="sigma")
