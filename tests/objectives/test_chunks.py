"""Chunks by hand."""

import torch

from surpass.objectives.chunks import chunk_clone
from surpass.objectives.rows import Rows


def test_a_chunk_is_imitated_from_its_first_observation():
    class Net:
        def imitation(self, obs, action):
            return obs.sum(-1) * 100 + action @ torch.tensor([1.0, 10.0, 2.0, 20.0])

    rows = Rows(
        {"obs": torch.tensor([[[1.0], [7.0]]]), "action": torch.tensor([[[1.0, 2], [3, 4]]])}
    )
    assert chunk_clone()({"pi": Net()}, rows).tolist() == [100 + 1 + 20 + 6 + 80]  # type: ignore
