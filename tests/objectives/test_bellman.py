"""Backups, temporal differences and penalties against values computed by hand."""

import math

import pytest
import torch

from surpass.objectives.bellman import (
    apart,
    behavior_penalized,
    clipped_double,
    conservative,
    expected,
    logged_return,
    max_backup,
    sarsa,
    soft,
    state_value,
    subset_min,
    target_of,
    td,
)
from surpass.objectives.rows import Rows


class Table(dict):
    """Nets by name, as functions."""

    __getattr__ = dict.__getitem__


class LinearCritics:
    """Q_i(s, a) = c_i + s + w_i a, for [B, 1] observations and actions."""

    actions = 0

    def __init__(self, constants, weights):
        self.c, self.w = torch.tensor(constants), torch.tensor(weights)

    def __call__(self, obs, action):
        shape = (-1, *([1] * (action.dim() - 1)))
        return self.c.view(shape) + obs[..., 0] + self.w.view(shape) * action[..., 0]

    def fit(self, obs, action, y, huber=None):
        error = self(obs, action) - y
        return error.square() if huber is None else error.abs().clamp(max=huber)

    def action_gradients(self, obs, action):
        return self.w[:, None, None].expand(-1, *action.shape)


def policy(mean, logp=0.0):
    """Always the same action, with the same log-probability."""

    class Fixed:
        def __call__(self, obs):
            return torch.full((obs.shape[0], 1), mean)

        def sample(self, obs, samples=None):
            lead = (obs.shape[0],) if samples is None else (samples, obs.shape[0])
            steps = 0.0 if samples is None else torch.arange(samples).view(-1, 1, 1) * 0.1
            return torch.full((*lead, 1), mean) + steps, torch.full(lead, logp)

    return Fixed()


ROWS = Rows({
    "obs": torch.tensor([[1.0], [2.0]]),
    "action": torch.tensor([[0.5], [-0.5]]),
    "reward": torch.tensor([1.0, 2.0]),
    "next_obs": torch.tensor([[3.0], [4.0]]),
    "terminated": torch.tensor([0.0, 1.0]),
    "next_action": torch.tensor([[0.1], [0.2]]),
    "return_to_go": torch.tensor([9.0, -9.0]),
})  # fmt: skip


def nets(**more):
    q = LinearCritics([0.0, 1.0], [2.0, -2.0])
    return Table(q=q, q_target=q, pi=policy(0.5, -1.0), pi_target=policy(0.5),
                 alpha=lambda: torch.tensor(0.3), v=lambda s: torch.stack([s[:, 0], 2 * s[:, 0]]),
                 **more)  # fmt: skip


@pytest.mark.parametrize(
    "backup, want",
    [
        # Q(s', 0.5) = (s' + 1, s' + 1 - 1): the minimum is s'
        (clipped_double(noise=0.0), [3.0, 4.0]),
        (behavior_penalized(10.0, noise=0.0), [3.0 - 10 * 0.16, 4.0 - 10 * 0.09]),
        (soft(), [3.3, 4.3]),
        (soft(entropy=False), [3.0, 4.0]),
        (subset_min(size=2), [3.3, 4.3]),
        (state_value(), [3.0, 4.0]),
        (sarsa(), [3.2, 4.4]),
        # the actions are 0.5, 0.6, 0.7: the minima are s', s' - 0.2, s' - 0.4
        (expected(3), [2.8, 3.8]),
        (max_backup(3), [3.0, 4.0]),
    ],
)
def test_backups(backup, want):
    torch.testing.assert_close(backup(nets(), ROWS), torch.tensor(want))


def test_target_smoothing_is_clipped_noise_within_the_box():
    many = Rows({"next_obs": torch.zeros(4000, 1)})
    table = nets(q_=LinearCritics([0.0], [1.0]))
    found = clipped_double(noise=10.0, clip=0.3, q="q_")(table, many)
    assert found.min() == pytest.approx(0.2) and found.max() == pytest.approx(0.8)
    table["pi_target"] = policy(0.9)
    assert clipped_double(noise=10.0, clip=0.3, q="q_")(table, many).max() == pytest.approx(1.0)


def test_the_target_stops_at_termination_only_and_can_be_clamped():
    y = target_of(nets(), ROWS, state_value(), 0.5)
    torch.testing.assert_close(y, torch.tensor([1.0 + 0.5 * 3.0, 2.0]))
    y = target_of(nets(), ROWS, state_value(), 0.5, clamp=(-1.0, 2.2))
    torch.testing.assert_close(y, torch.tensor([2.2, 2.0]))


def test_the_loss_sums_the_errors_of_the_critics():
    # y = (2.5, 2); Q_1 = s + 2 a = (2, 1), Q_2 = 1 + s - 2 a = (1, 4)
    loss = td(state_value(), 0.5)(nets(), ROWS)
    torch.testing.assert_close(loss, torch.tensor([0.25 + 2.25, 1.0 + 4.0]))
    loss = td(state_value(), 0.5, huber=0.75)(nets(), ROWS)
    torch.testing.assert_close(loss, torch.tensor([0.5 + 0.75, 1.5]))


def test_several_steps_are_discounted_by_their_number():
    rows = Rows({
        "reward": torch.tensor([[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]]),
        "span": torch.tensor([3.0, 1.0]),
        "next_obs": torch.tensor([[8.0], [8.0]]),
        "terminated": torch.zeros(2),
    })  # fmt: skip
    y = target_of(nets(), rows, state_value(), 0.5)
    torch.testing.assert_close(y, torch.tensor([1 + 1 + 1 + 8 / 8, 1 + 8 / 2]))


class Constant(LinearCritics):
    """The same value everywhere: c_i."""

    def __init__(self, c):
        super().__init__(c, [0.0] * len(c))

    def __call__(self, obs, action):
        return super().__call__(torch.zeros_like(obs), action)


def test_the_conservative_penalty_of_a_flat_critic_is_the_log_of_its_density_weights():
    table = nets()
    table["q"] = Constant([3.0])
    table["pi"] = policy(0.0, logp=math.log(2.0))
    # each of 4 + 4 policy actions counts exp(3) / 2, each of 4 uniform ones exp(3) / 0.5
    want = math.log(8 / 2 + 4 * 2)
    found = conservative(4)(table, ROWS)
    torch.testing.assert_close(found, torch.full((2,), want))


def test_the_floor_lifts_the_policys_actions_only():
    table = nets()
    table["q"], table["pi"] = Constant([3.0]), policy(0.0, logp=0.0)
    found = conservative(1, floor=logged_return())(table, ROWS)
    want = [math.log(2 * math.exp(9.0) + 2 * math.exp(3.0)) - 3.0, math.log(2 + 2)]
    torch.testing.assert_close(found, torch.tensor(want))


def test_with_discrete_actions_the_penalty_is_a_log_sum_over_all():
    values = torch.tensor([[[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]])  # [1, B, A]

    class Discrete:
        actions = 3

        def __call__(self, obs, action):
            return values.gather(-1, action[None, :, None])[..., 0]

        def all(self, obs):
            return values

    rows = Rows({"obs": torch.zeros(2, 1), "action": torch.tensor([1, 2])})
    found = conservative()(Table(q=Discrete()), rows)
    want = [math.log(math.e + math.e**2 + 1) - 2.0, math.log(3.0)]
    torch.testing.assert_close(found, torch.tensor(want))


@pytest.mark.parametrize(
    "weights, want",
    [([1.0, 5.0], 2.0), ([1.0, -5.0], -2.0), ([1.0, 1.0, -1.0], (9 - 8 - 3) / 2)],
)
def test_diversity_counts_how_many_gradients_agree(weights, want):
    """In one dimension every cosine is 1 or -1: sum over i != j of the cosines, over n - 1."""
    critics = LinearCritics([0.0] * len(weights), weights)
    torch.testing.assert_close(
        apart()(Table(q=critics), ROWS),
        torch.full((2,), want),
    )
