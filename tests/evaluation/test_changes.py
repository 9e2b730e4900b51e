"""What changed between two policies: by hand, and where."""

import math

import pytest
import torch

from surpass.errors import InputError
from surpass.evaluation.changes import changes


def test_divergence_and_moves_by_hand():
    before = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).double()
    after = torch.tensor([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]).double()
    found = changes(before.log(), after.log())
    torch.testing.assert_close(found.divergence, torch.tensor([0.5 * math.log(2), 0.0]).double())
    moved = torch.zeros(3, 3).double()
    moved[0, 2] = 0.125
    torch.testing.assert_close(found.moved, moved)
    assert found.share(0.5) == pytest.approx(1.0)
    assert "action 0 gave way to 2 at 12.5 percent" in str(found)


def test_weights_of_states_count():
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    q = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    even, first = changes(p, q), changes(p, q, torch.tensor([1.0, 0.0]))
    assert float(first.divergence.mean()) == pytest.approx(2 * float(even.divergence.mean()))
    assert float(first.moved[1, 0]) == pytest.approx(0.4)


def test_nothing_changed_and_shapes_that_do_not_fit():
    p = torch.full((3, 2), 0.5).log()
    assert changes(p, p).share() == 0.0
    with pytest.raises(InputError, match="not of the same"):
        changes(p, p[:2])
