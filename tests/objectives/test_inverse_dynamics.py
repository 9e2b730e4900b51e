"""The penalty at shaken states: where it is CQL's own, and where it is at rest."""

import torch

from surpass.objectives.bellman import conservative
from surpass.objectives.inverse_dynamics import contextual
from surpass.objectives.rows import Rows
from surpass.parts import part


class Table(dict):
    __getattr__ = dict.__getitem__


class Answers:
    """Inverse dynamics that always say the same."""

    def __init__(self, action):
        self.action = action

    def sample(self, both):
        return self.action, None


class Uniform:
    def sample(self, obs, samples):
        return torch.rand(samples, len(obs), 2) * 2 - 1, torch.zeros(samples, len(obs))


def critic(obs, action):
    return (obs[:, 0] * action[..., 0] + action[..., 1])[None]


def test_without_noise_and_with_the_logged_action_it_is_the_penalty_itself():
    rows = Rows({"obs": torch.randn(6, 3), "next_obs": torch.randn(6, 3),
                 "action": torch.rand(6, 2)})  # fmt: skip
    nets = Table(q=critic, pi=Uniform(), inverse=Answers(rows.action))
    torch.manual_seed(0)
    found = contextual(conservative(4), sigma=0.0)(nets, rows)
    torch.manual_seed(0)
    torch.randn_like(rows.obs)  # what shaking by nothing draws
    torch.testing.assert_close(found, conservative(4)(nets, rows))


@part
def told(nets, rows, /):
    """The state and the action that a penalty sees."""
    return torch.cat([rows.obs, rows.action], -1)


def test_states_are_shaken_by_sigma_and_the_inferred_action_replaces_the_logged_one():
    obs = torch.zeros(40_000, 2)
    rows = Rows({"obs": obs, "next_obs": obs, "action": torch.zeros(40_000, 1)})
    nets = Table(inverse=Answers(torch.full((40_000, 1), 0.7)))
    found = contextual(told(), sigma=0.3)(nets, rows)
    assert torch.equal(found[:, 2], torch.full((40_000,), 0.7))
    assert abs(float(found[:, :2].std()) - 0.3) < 0.01


class Values:
    actions = 3

    def __init__(self, q):
        self.q = q

    def all(self, obs):
        return self.q[None, None]

    def __call__(self, obs, action):
        return self.q[action][None]


def test_with_nothing_else_to_fit_values_come_to_the_log_odds_of_the_inferred_actions():
    """sum_a I(a) d/dQ (logsumexp Q - Q(a)) = softmax(Q) - I, which is 0 at Q = log I."""
    chances = torch.tensor([0.2, 0.5, 0.3])
    q = chances.log().requires_grad_()
    rows = Rows({"obs": torch.zeros(1, 1), "next_obs": torch.zeros(1, 1),
                 "action": torch.tensor([0])})  # fmt: skip
    total = sum(
        chances[a] * contextual(conservative())(
            Table(q=Values(q), inverse=Answers(torch.tensor([a]))), rows)[0]
        for a in range(3)
    )  # fmt: skip
    total.backward()
    torch.testing.assert_close(q.grad, torch.zeros(3), rtol=0, atol=1e-6)
