"""Segments of episodes, and scripted preferences between them."""

import pytest
import torch

from surpass.data.records import Transitions
from surpass.data.segments import compared, segment_starts, segments
from surpass.errors import InputError


def log(lengths=(3, 2, 4)):
    ended = torch.zeros(sum(lengths), dtype=torch.bool)
    ended[torch.tensor(lengths).cumsum(0) - 1] = True
    n = len(ended)
    obs = torch.arange(float(n))[:, None]
    return Transitions(
        obs=obs, action=-obs, reward=obs[:, 0], next_obs=obs + 1, terminated=ended,
        truncated=torch.zeros(n, dtype=torch.bool),
        episode=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)), batch_size=[n],
    )  # fmt: skip


def test_segments_stay_within_an_episode():
    assert segment_starts(log(), 3).tolist() == [0, 5, 6]
    assert segment_starts(log(), 2).tolist() == [0, 1, 3, 5, 6, 7]
    found = segments(log(), torch.tensor([5, 0]), 3)
    assert found.obs[..., 0].tolist() == [[5, 6, 7], [0, 1, 2]]
    assert found.action[..., 0].tolist() == [[-5, -6, -7], [0, -1, -2]]
    with pytest.raises(InputError, match="no episode of the log has 5 rows"):
        segment_starts(log(), 5)


def test_the_worthier_segment_is_preferred_unless_labels_are_flipped():
    rows = log()
    worth = -rows.obs[:, 0]
    found = compared(rows, worth, 200, 2, seed=1)
    assert len(found) < 200  # a segment drawn twice is not preferred to itself
    assert bool((found.chosen.obs.sum((1, 2)) < found.rejected.obs.sum((1, 2))).all())
    turned = compared(rows, worth, 200, 2, seed=1, flip=1.0)
    assert torch.equal(turned.chosen.obs, found.rejected.obs)
    some = compared(rows, worth, 2000, 2, seed=1, flip=0.25)
    wrong = (some.chosen.obs.sum((1, 2)) > some.rejected.obs.sum((1, 2))).float().mean()
    assert float(wrong) == pytest.approx(0.25, abs=0.04)
    with pytest.raises(InputError, match="worth the same"):
        compared(rows, torch.zeros(9), 10, 2)
