"""Actor and value losses and cloning weights against values computed by hand."""

import math

import pytest
import torch

from surpass.objectives.rows import Rows
from surpass.objectives.value import (
    clone,
    entropic,
    expectile,
    maximize,
    monte_carlo,
    near,
    quantile_expectile,
    temperature,
)
from surpass.objectives.weights import (
    better_than_average,
    exponential,
    over_policy,
    over_value,
    positive,
    quantile_over_value,
)
from surpass.parts import part, stop


class Table(dict):
    __getattr__ = dict.__getitem__


class Values:
    """Given values, whatever the input: [n, B] for logged actions, others for the policy's."""

    def __init__(self, logged, of_policy=None):
        self.logged, self.of_policy = torch.tensor(logged), of_policy

    def __call__(self, obs, action=None, first=None):
        if action is not None and action.dim() == 3:
            return self.of_policy
        return self.logged if first is None else self.logged[:first]


class Policy:
    def __init__(self, action, logp):
        self.action, self.lp = torch.tensor(action), torch.tensor(logp)

    def __call__(self, obs):
        return self.action

    def sample(self, obs, samples=None):
        if samples is None:
            return self.action, self.lp
        return self.action.expand(samples, -1, -1), self.lp.expand(samples, -1)

    def imitation(self, obs, action):
        return (self.action - action).square().mean(-1)


class Dual(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.log_value = torch.nn.Parameter(torch.tensor(math.log(value)))

    def forward(self):
        return self.log_value.exp()


ROWS = Rows({
    "obs": torch.zeros(2, 1),
    "action": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "return_to_go": torch.tensor([4.0, -2.0]),
})  # fmt: skip


def nets():
    # the lowest over the critics is (1, -2)
    q = Values([[3.0, -2.0], [1.0, 4.0]], torch.tensor([[[0.0, 0.0], [1.0, -4.0]]] * 2))
    return Table(q=q, q_target=q, v=Values([[0.0, 1.0]]),
                 pi=Policy([[0.0, 0.0], [0.0, 0.0]], [-1.0, -3.0]), alpha=Dual(0.5))  # fmt: skip


def test_expectiles_weigh_the_two_sides_of_the_error():
    torch.testing.assert_close(expectile(0.9)(nets(), ROWS), torch.tensor([0.9 * 1.0, 0.1 * 9.0]))
    # the 0.25-quantile of (1, 3) is 1.5, of (-2, 4) it is -0.5
    torch.testing.assert_close(
        quantile_expectile(0.9, 0.25)(nets(), ROWS), torch.tensor([0.9 * 2.25, 0.1 * 2.25])
    )


def test_an_expectile_fitted_by_gradient_descent_is_that_of_the_sample():
    """The tau-expectile m of a sample solves tau E[(x - m)+] = (1 - tau) E[(m - x)+]."""
    sample = torch.randn(2000)
    guess = torch.zeros(1, requires_grad=True)
    rows = Rows({"obs": torch.zeros(2000, 1), "action": torch.zeros(2000, 1)})
    q = Values([[0.0]])
    q.logged = sample[None]
    optimizer = torch.optim.Adam([guess], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        held = Table(q_target=q, v=lambda obs: guess.expand(1, 2000))
        expectile(0.8)(held, rows).mean().backward()
        optimizer.step()
    above = (sample - guess).clamp(min=0).mean()
    below = (guess - sample).clamp(min=0).mean()
    assert float((0.8 * above / (0.2 * below)).detach()) == pytest.approx(1.0, abs=0.01)


def test_returns_are_fitted_by_squared_error():
    torch.testing.assert_close(monte_carlo()(nets(), ROWS), torch.tensor([16.0, 9.0]))


def test_imitation_is_a_mean_or_a_sum_over_dimensions():
    torch.testing.assert_close(clone()(nets(), ROWS), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(clone(reduce="sum")(nets(), ROWS), torch.tensor([1.0, 1.0]))


@part
def up(nets, rows, /):
    """Always the action (1, 1)."""
    return torch.ones_like(rows.action)


def test_distance_to_a_named_action():
    torch.testing.assert_close(near(up())(nets(), ROWS), torch.tensor([1.0, 1.0]))


def test_the_value_of_the_policy_is_that_of_the_first_the_lowest_or_the_mean_critic():
    for over, want in (("first", [-3.0, 2.0]), ("min", [-1.0, 2.0]), ("mean", [-2.0, -1.0])):
        torch.testing.assert_close(maximize(over=over)(nets(), ROWS), torch.tensor(want))
    scaled = maximize(scale=2.0)(nets(), ROWS)  # mean |Q| is 2.5
    torch.testing.assert_close(scaled, torch.tensor([-3.0, 2.0]) * 2.0 / 2.5)


def test_the_two_terms_of_sac():
    table = nets()
    terms = entropic()(table, ROWS)
    torch.testing.assert_close(terms["actor"], torch.tensor([-0.5 - 1.0, -1.5 + 2.0]))
    log_alpha = math.log(0.5)
    want = torch.tensor([-log_alpha * (-1 - 2), -log_alpha * (-3 - 2)])
    torch.testing.assert_close(terms["temperature"], want)
    torch.testing.assert_close(temperature()(table, ROWS), want)
    assert not terms["actor"].requires_grad  # alpha is not moved by the actor's term
    fixed = entropic(fixed=2.0)(table, ROWS)
    assert set(fixed) == {"actor"}
    torch.testing.assert_close(fixed["actor"], torch.tensor([-2.0 - 1.0, -6.0 + 2.0]))
    pulled = entropic(fixed=2.0, near=0.5)(table, ROWS)["actor"] - fixed["actor"]
    apart = table.pi.sample(ROWS.obs)[0] - ROWS.action
    torch.testing.assert_close(pulled, 0.5 * apart.square().sum(-1))


def test_weights_from_advantages():
    table = nets()
    advantage = over_value()
    torch.testing.assert_close(advantage(table, ROWS), torch.tensor([1.0, -3.0]))
    torch.testing.assert_close(quantile_over_value(0.25)(table, ROWS), torch.tensor([1.5, -1.5]))
    # the policy's two actions are worth (0, 1) and (0, -4): means 0.5 and -2
    torch.testing.assert_close(over_policy(2)(table, ROWS), torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(
        exponential(advantage, 2.0, 5.0)(table, ROWS), torch.tensor([5.0, math.exp(-6.0)])
    )
    torch.testing.assert_close(positive(advantage)(table, ROWS), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(better_than_average()(table, ROWS), torch.tensor([1.0, 0.0]))


def test_weighted_cloning_is_a_product_of_parts():
    table = nets()
    loss = stop(positive(over_value())) * clone()
    torch.testing.assert_close(loss(table, ROWS), torch.tensor([0.5, 0.0]))
