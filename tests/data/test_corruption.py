"""Damage to a log: which rows, how far, and nothing else."""

import pytest
import torch

from surpass.data.corruption import corrupted
from surpass.errors import InputError
from surpass.tasks.point import point_log


@pytest.mark.parametrize("kind", ["observation", "action", "reward", "dynamics"])
def test_only_the_named_column_of_a_share_of_rows_is_damaged(kind):
    log = point_log("random", 3000)
    bad = corrupted(log, kind, rate=0.3, scale=0.5, seed=1)
    columns = {"observation": "obs", "action": "action", "reward": "reward", "dynamics": "next_obs"}
    for name, column in columns.items():
        before, after = getattr(log, column), getattr(bad, column)
        changed = (before != after).reshape(len(log), -1).any(1)
        if name != kind:
            assert not changed.any()
            continue
        assert abs(float(changed.float().mean()) - 0.3) < 0.03
        apart = (after - before)[changed]
        if kind == "reward":
            assert after[changed].abs().max() <= 15.0 and after[changed].abs().mean() > 6.0
        else:
            assert (apart.abs() <= 0.5 * before.std(0) + 1e-6).all()
    assert torch.equal(log.obs, point_log("random", 3000).obs)  # the log itself is as it was


def test_the_same_rows_are_hit_whatever_the_kind_and_actions_stay_in_bounds():
    log = point_log("random", 3000)
    hit = {
        k: (getattr(corrupted(log, k, seed=4), c) != getattr(log, c)).reshape(len(log), -1).any(1)
        for k, c in (("observation", "obs"), ("dynamics", "next_obs"), ("reward", "reward"))
    }
    assert torch.equal(hit["observation"], hit["dynamics"])
    assert torch.equal(hit["observation"], hit["reward"])
    assert corrupted(log, "action", scale=3.0).action.abs().max() <= 1.0


def test_other_kinds_and_rates_are_refused():
    log = point_log("random", 120)
    with pytest.raises(InputError, match="observation, action, reward, dynamics"):
        corrupted(log, "noise")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        corrupted(log, "reward", rate=1.3)
