"""The loss that aligns a diffusion policy, against DPO and against energies that are formulas."""

import pytest
import torch
from torch.nn.functional import logsigmoid

from surpass.objectives.denoising import diffused, variance_preserving
from surpass.objectives.diffusion_alignment import aligned, softmax_cross_entropy
from surpass.objectives.rows import Rows

ABAR = variance_preserving(1000, high=20.0)
MEAN, STD, SLOPE = 0.1, 0.4, 1.5  # of the behavior in each of two dimensions; Q = SLOPE (a_1 + a_2)


def test_with_two_candidates_one_worth_all_it_is_dpo():
    implicit = torch.tensor([[0.3, -1.2], [0.8, 0.4]])
    worth = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    found = softmax_cross_entropy(implicit, worth)
    better, other = implicit.diagonal(), implicit.flip(0).diagonal()
    torch.testing.assert_close(found, -logsigmoid(better - other))


def test_its_gradient_is_the_difference_of_the_two_softmaxes():
    implicit = torch.tensor([[0.3], [0.8], [-0.5]], requires_grad=True)
    worth = torch.tensor([[1.0], [0.0], [2.0]], requires_grad=True)
    softmax_cross_entropy(implicit, worth).sum().backward()
    assert implicit.grad is not None and worth.grad is None
    torch.testing.assert_close(implicit.grad, (implicit.softmax(0) - worth.softmax(0)).detach())


class Leaning:
    """f(a_t|s, t) = lean (a_1 + a_2) + what depends on state and level alone; one level."""

    def __init__(self, lean, level):
        self.lean, self.level = torch.tensor(lean, requires_grad=True), level

    def disturbed(self, action):
        level = torch.full(action.shape[-2:-1], self.level)
        return diffused(action, ABAR[level], torch.randn_like(action)), level

    def energy(self, obs, noisy, level):
        return self.lean * noisy.sum(-1) + 7.0 * obs[:, 0] + level


class Critic:
    """Twins, the lower of which is SLOPE (a_1 + a_2)."""

    def __call__(self, obs, action):
        value = SLOPE * action.sum(-1)
        return torch.stack([value + 1.0, value])


def slope_at(lean, level, alpha=0.8, beta=0.5, candidates=400, states=300):
    """The gradient of the loss with respect to how the policy leans; the behavior leans by 0.2."""
    torch.manual_seed(0)
    drawn = MEAN + STD * torch.randn(states, candidates * 2)
    rows = Rows({"obs": torch.randn(states, 1), "action": torch.zeros(states, 2), "support": drawn})
    nets = {"pi": Leaning(lean, level), "mu": Leaning(0.2, level), "q_target": Critic()}
    aligned(alpha, beta)(nets, rows).mean().backward()  # type: ignore[arg-type]
    assert nets["mu"].lean.grad is None
    return float(nets["pi"].lean.grad)


@pytest.mark.parametrize("level", [0, 100, 300])
def test_it_is_least_at_the_exact_energy_of_the_tilted_law(level):
    """log E[exp(alpha Q) | a_t] of a Gaussian leans by alpha SLOPE sqrt(abar) s^2 / (abar s^2 + 1 -
    abar), which the policy has to lean more than the behavior, over beta."""
    abar = float(ABAR[level])
    exact = 0.8 * SLOPE * abar**0.5 * STD**2 / (abar * STD**2 + 1 - abar)
    below, at, above = (slope_at(0.2 + share * exact / 0.5, level) for share in (0.8, 1.0, 1.2))
    assert below < 0 < above
    assert abs(at) < 0.25 * min(-below, above)
