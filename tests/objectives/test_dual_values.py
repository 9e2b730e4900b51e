"""Dual value losses: what they make of V, in closed form."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.objectives.dual_values import (
    chi_square,
    dual_value,
    gumbel,
    imitated,
    other_than,
    total_variation,
)
from surpass.objectives.rows import Rows
from surpass.objectives.value import expectile
from surpass.parts import part


class Table(dict):
    __getattr__ = dict.__getitem__


class Given:
    """Values that depend on the action's first number, for one action a state or for many."""

    def __init__(self, slope):
        self.slope, self.fitted = torch.tensor(slope), None

    def __call__(self, obs, action=None):
        if action is None:
            return self.slope[:, None] * obs[:, 0]
        lead = self.slope.reshape(-1, *(1,) * (action.dim() - 1))
        return obs[:, 0] + lead * action[..., 0]

    def fit(self, obs, action, y):
        self.fitted = y
        return (self(obs, action) - y).square()


def lowest(f, q):
    """Where V makes the mean of f(Q - V) least, on a grid."""
    v = torch.linspace(-3, 3, 60_001)
    return float(v[f(q[:, None] - v).mean(0).argmin()])


def test_the_losses_by_hand():
    u = torch.tensor([-5.0, -2.0, 0.0, 2.0])
    assert chi_square(1.0)(u).tolist() == [1.25, 0.0, 0.0, 3.0]
    assert chi_square(0.5)(u).tolist() == [3.125, 1.0, 0.0, 0.5]
    assert total_variation(0.8)(u).tolist() == pytest.approx([1.0, 0.4, 0.0, 1.2])
    z = torch.tensor([-2.5, -1.0, 0.0, 1.0]).double()  # over 2, of which 1 is the largest
    want = (z.exp() - z - 1) / math.e
    torch.testing.assert_close(gumbel(2.0)(2 * z), want)
    clipped = gumbel(1.0, clip=0.5)(z)
    kept = z.clamp(max=0.5)
    torch.testing.assert_close(clipped, (kept.exp() - kept - 1) / math.exp(0.5))
    low = torch.tensor([-3.0, -9.0])  # the scale is never below exp(-1)
    torch.testing.assert_close(gumbel()(low), (low.exp() - low - 1) * math.e)


@pytest.mark.parametrize("lam", [0.6, 0.8, 1 / 1.9])
def test_total_variation_gives_a_quantile_of_q(lam):
    q = torch.linspace(-1, 1, 1001)
    assert lowest(total_variation(lam), q) == pytest.approx(2 * (2 - 1 / lam) - 1, abs=3e-3)


def test_gumbel_gives_the_log_of_the_mean_exponential_and_chi_square_its_first_order_condition():
    q = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 0.5
    soft = 0.7 * float(torch.logsumexp(q / 0.7, 0) - math.log(400))
    v = torch.tensor(soft, requires_grad=True)  # the scale of a batch moves with V, its zero not
    gumbel(0.7, clip=math.inf)(q - v).mean().backward()
    assert abs(float(v.grad)) < 1e-6
    u = q - lowest(chi_square(0.75), q)
    slope = torch.where(u > 0, 1 + u / 2, 0.0).mean()  # f*' = w where it counts
    assert float(slope) == pytest.approx(0.25 / 0.75, abs=4e-3)


@part
def squared_by_side(u, /, tau=0.7):
    return torch.where(u > 0, tau, 1 - tau) * u.square()


def test_an_expectile_is_the_dual_value_of_squares():
    nets = Table(q_target=Given([1.0, -0.5]), v=Given([0.3, 0.8]))
    rows = Rows({"obs": torch.randn(6, 2), "action": torch.rand(6, 2)})
    found, want = dual_value(squared_by_side(0.8))(nets, rows), expectile(0.8)(nets, rows)
    torch.testing.assert_close(found, want)


def test_even_actions_stand_beside_the_logged_one_and_each_counts_as_much():
    nets = Table(q_target=Given([2.0]), v=Given([1.0]))
    obs, action = torch.zeros(1, 1).expand(20_000, 1), torch.ones(20_000, 1)
    rows = Rows({"obs": obs, "action": action})
    identity = part(lambda u, /: u)
    alone, beside = (float(dual_value(identity(), m)(nets, rows).mean()) for m in (0, 3))
    assert alone == 2.0 and beside == pytest.approx(2.0 / 4, abs=0.02)


def test_rows_of_the_expert_go_to_the_best_value_and_others_a_step_down():
    nets = Table(q=Given([0.0]), v=Given([1.0]))
    rows = Rows(
        {
            "obs": torch.zeros(4, 1), "action": torch.zeros(4, 1),
            "next_obs": torch.tensor([[7.0], [3.0], [3.0], [3.0]]),
            "terminated": torch.tensor([0.0, 0.0, 1.0, 0.0]), "source": torch.tensor([2, 0, 0, 1]),
        },
        ("log", "mixed", "expert"),
    )  # fmt: skip
    found = imitated(0.5, best=20.0, step=-1.0, end=-8.0)(nets, rows)
    assert nets.q.fitted.tolist() == [20.0, 0.5, -5.0, 0.5]
    assert found.tolist() == [400.0, 0.25, 25.0, 0.25]
    assert other_than()(nets, rows).tolist() == [0.0, 1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="source 'hero'; the batch draws from log, mixed, expert"):
        other_than("hero")(nets, rows)
