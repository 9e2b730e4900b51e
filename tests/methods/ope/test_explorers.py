"""Explorers: what they find, and that their logs go straight back into `improve`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surpass.critics.arms import Means
from surpass.critics.rewards import Ridge
from surpass.data.truth import Truth
from surpass.data.writers import write_log
from surpass.errors import InputError
from surpass.forms import Explorer
from surpass.improve.job import improve
from surpass.methods.ope.explorers import neural_cb, squarecb, ti_ucb
from surpass.policies.exploring import epsilon_greedy, optimistic
from surpass.tasks.arms import RisingArms
from surpass.training.explore import explore


def test_trends_find_the_arm_that_rises_and_means_do_not():
    start, plateau = np.array([[0.5, 0.2]] * 6), np.array([[0.5, 0.9]] * 6)

    def earned(form):
        arms = RisingArms(start, plateau, np.full((6, 2), 60.0), noise=0.02)
        return explore(form, arms, 400, 6, seed=2).won.mean()

    assert earned(ti_ucb(400, window=30)) > 0.75
    assert earned(Explorer(optimistic(0.1), Means())) < 0.55
    with pytest.raises(InputError, match="share"):
        ti_ucb(share=1.0)


def test_neural_exploring_beats_chance_and_explores_by_gaps():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=g)
    best = torch.nn.functional.one_hot((x @ torch.randn(4, 3, generator=g)).argmax(1), 3).double()
    world = Truth(x, best, torch.full((400, 3), 1 / 3))
    found = explore(neural_cb(300.0), world, 600, 1, seed=1)
    assert np.mean(found.earned[-200:]) > 0.7
    p = found.log.propensities
    assert p is not None and float(p.min()) > 0


def test_a_log_of_exploring_goes_straight_into_improve(tmp_path):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(500, 3, generator=g, dtype=torch.float64)
    world = Truth(x, torch.sigmoid(2 * x @ torch.randn(3, 3, generator=g).double()), x)
    form = squarecb(10.0, memory=None, model=Ridge())
    log = explore(form, world, 4, 1000, seed=1).log
    write_log(log, tmp_path / "log.parquet")
    job = improve(str(tmp_path / "log.parquet"), out=tmp_path / "out", methods=["tilt"])
    assert job.verdict in ("PROMOTE", "HOLD") and job.rows == 4000
    plain = explore(Explorer(epsilon_greedy(1.0), Ridge()), world, 4, 1000, seed=1)
    assert np.mean(explore(form, world, 4, 1000, seed=1).earned) > np.mean(plain.earned)
