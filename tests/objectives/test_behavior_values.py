"""The ranking term by hand and by brute force."""

import math

import torch

from surpass.objectives.behavior_values import ranked
from surpass.objectives.rows import Rows


class Table(dict):
    __getattr__ = dict.__getitem__


class Held:
    def __init__(self, values):
        self.values = values

    def all(self, obs):
        return self.values


def rows(action, returns):
    n = len(action)
    return Rows({"obs": torch.zeros(n, 1), "action": torch.tensor(action),
                 "return_to_go": torch.tensor(returns)})  # fmt: skip


def test_other_actions_count_for_what_they_stand_above_the_logged_one_less_the_margin():
    nets = Table(q=Held(torch.tensor([[[1.0, 0.5, 1.5], [2.0, 0.0, 0.0]]])))
    seen = rows([0, 0], [3.0, 1.0])  # a mean of 2
    found = ranked(0.25, beta=2.0)(nets, seen)
    # row 0: action 1 is half below, action 2 half above; row 1: both far below
    torch.testing.assert_close(found, torch.tensor([math.exp(0.5) * 0.75**2, 0.0]))
    capped = ranked(0.25, beta=1e-3)(nets, seen)
    torch.testing.assert_close(capped[0], torch.tensor(20.0 * 0.75**2))


def test_it_is_what_loops_over_rows_members_and_actions_give():
    torch.manual_seed(0)
    values, action, returns = torch.randn(2, 5, 4), [3, 0, 1, 1, 2], [0.3, -1.0, 2.0, 0.0, 0.5]
    want = []
    for b in range(5):
        total = 0.0
        for n in range(2):
            logged = float(values[n, b, action[b]])
            for i in range(4):
                if i != action[b]:
                    total += max(float(values[n, b, i]) - logged + 0.05, 0.0) ** 2
        want.append(math.exp((returns[b] - sum(returns) / 5) / 2.0) * total)
    found = ranked()(Table(q=Held(values)), rows(action, returns))
    torch.testing.assert_close(found, torch.tensor(want))


def test_the_gradient_lifts_the_logged_action_as_it_pushes_the_others():
    values = torch.zeros(1, 1, 3, requires_grad=True)
    ranked()(Table(q=Held(values)), rows([1], [0.0])).sum().backward()
    torch.testing.assert_close(values.grad[0, 0], torch.tensor([0.1, -0.2, 0.1]))
