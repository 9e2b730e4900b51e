"""Losses over listed candidates, by hand."""

import torch
from torch import nn

from surpass.objectives.bellman import td
from surpass.objectives.listed import absent_as_nan, every_candidate, over_elapsed
from surpass.objectives.rows import Rows
from surpass.parts import part
from surpass.training.snapshots import Bank


class Table(nn.Module):
    """The same values in every state."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def all(self, obs):
        return self.values.expand(1, len(obs), -1)

    def fit(self, obs, action, y, huber):
        error = (self.all(obs).gather(-1, action[None, :, None])[..., 0] - y).abs()
        return torch.where(error < huber, 0.5 * error**2 / huber, error - 0.5 * huber)


@part
def ten(nets, rows, /):
    """A backup of 10."""
    return torch.full((len(rows),), 10.0)


def rows():
    return Rows({
        "obs": torch.arange(12.0).reshape(2, 6), "next_obs": torch.arange(12.0).reshape(2, 6) + 100,
        "action": torch.tensor([1, 0]), "reward": torch.tensor([2.0, 0.0]),
        "terminated": torch.tensor([0.0, 1.0]), "elapsed": torch.tensor([2.0, 1.0]),
        "available": torch.tensor([[True, True, False], [True, True, True]]),
        "next_available": torch.tensor([[True, False, False], [True, True, True]]),
        "rewards": torch.tensor([[1.0, 2.0, 50.0], [0.0, 0.5, 1.0]]),
        "elapses": torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]]),
    })  # fmt: skip


def test_every_candidate_by_hand():
    bank = Bank()
    bank["q"] = Table([5.0, 5.0, 5.0])
    loss = every_candidate(ten(), 0.5)(bank, rows())
    # row 0: y = 1 + 5, 2 + 2.5; errors -1, 0.5; row 1 is an end: y = 0, 0.5, 1
    expected = torch.tensor([(0.5 + 0.125) / 2, (4.5 + 4.0 + 3.5) / 3])
    torch.testing.assert_close(loss, expected)


def test_with_one_candidate_it_is_the_temporal_difference_loss():
    bank = Bank()
    bank["q"] = Table([5.0, 5.0, 5.0])
    only = rows()
    chosen = nn.functional.one_hot(only.action, 3).bool()
    only = only.filled(available=chosen, **over_elapsed()(bank, only))
    torch.testing.assert_close(
        every_candidate(ten(), 0.5)(bank, only), td(ten(), 0.5, huber=1.0)(bank, only)
    )


def test_candidates_that_are_not_there_are_nan():
    found = absent_as_nan()(Bank(), rows())
    assert found["obs"].isnan().tolist() == [[False] * 4 + [True] * 2, [False] * 6]
    assert found["next_obs"].isnan().tolist() == [[False] * 2 + [True] * 4, [False] * 6]
    assert found["obs"][1].tolist() == rows().obs[1].tolist()
