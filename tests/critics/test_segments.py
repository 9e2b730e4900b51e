"""The encoder of segments: what it sees, and what it must not."""

import pytest
import torch

from surpass.critics.segments import segment_encoder
from surpass.errors import InputError
from surpass.forms import Spaces

SPACES = Spaces(3, 2)


def encoder(places=6):
    torch.manual_seed(0)
    return segment_encoder(4, width=8, layers=2, places=places)(SPACES)


def test_what_stands_behind_the_end_is_not_seen():
    """A padded segment has the code of the short one, whatever the padding holds."""
    net, obs, action = encoder(), torch.randn(2, 6, 3), torch.randn(2, 6, 2)
    mask = torch.ones(2, 6)
    mask[:, 4:] = 0.0
    short = net(obs[:, :4], action[:, :4], torch.ones(2, 4))
    torch.testing.assert_close(net(obs, action, mask), short)
    moved = action.clone()
    moved[:, 4:] += 5.0
    torch.testing.assert_close(net(obs, moved, mask), short)


def test_the_code_depends_on_every_step_and_on_their_order():
    net, obs, action = encoder(), torch.randn(1, 6, 3), torch.randn(1, 6, 2)
    mask, base = torch.ones(1, 6), None
    base = net(obs, action, mask)
    for t in range(6):
        moved = action.clone()
        moved[:, t] += 1.0
        assert (net(obs, moved, mask) - base).abs().max().item() > 1e-4
    turned = net(obs.flip(1), action.flip(1), mask)
    assert (turned - base).abs().max().item() > 1e-4


def test_longer_segments_than_it_has_places_for_are_named():
    with pytest.raises(InputError, match=r"segments of 6 steps.*at most 5"):
        encoder(5)(torch.zeros(1, 6, 3), torch.zeros(1, 6, 2), torch.ones(1, 6))
