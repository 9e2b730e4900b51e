"""What an encoder may see is what the first stage of the main job learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surpass.data.splits import learning_rows
from surpass.improve.stages import plan_stages


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("rows", [101, 1000])
def test_the_rows_of_the_first_stage(rows: int, timed: bool, grouped: bool) -> None:
    rng = np.random.default_rng(rows)
    time = np.round(rng.random(rows), 2) if timed else None
    group = rng.integers(0, rows // 5, rows) if grouped else None
    for seed in range(3):
        mine = learning_rows(rows, group=group, time=time, seed=seed)
        plan = plan_stages(
            rows,
            group=None if group is None else torch.from_numpy(group),
            time=None if time is None else torch.from_numpy(time),
            seed=seed,
        )
        assert sorted(plan.learn(0).tolist()) == mine.tolist()


def test_the_earliest_rows() -> None:
    assert learning_rows(10, time=np.arange(10)[::-1].copy()).tolist() == [7, 8, 9]
