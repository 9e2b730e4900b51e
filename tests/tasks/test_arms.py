"""Worlds of explorers: rewards by hand as arms rise and recover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.arms import RecoveringArms, RecoveringPlay, RisingArms


def test_rising_arms_rise_by_pulls_and_level_off():
    one = np.array([[0.2, 0.5]])
    arms = RisingArms(one, one + 0.4, np.array([[4.0, 2.0]]), noise=0.0, cost=np.array([0.1, 0.0]))
    rng = np.random.default_rng(0)
    paid = [float(arms.paid(arms.scene(1, rng), torch.tensor([0]), rng)) for _ in range(6)]
    assert paid == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert arms.scene(1, rng).mean[0].tolist() == pytest.approx([0.5, 0.5])
    assert arms.best_single(4)[0] == pytest.approx(0.5 + 0.7 + 0.9 + 0.9)
    with pytest.raises(InputError, match="1 copies"):
        arms.scene(2, rng)


def test_recovering_arms_pay_by_rest():
    curves = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    arms, rng = RecoveringArms(curves), np.random.default_rng(0)
    rested, paid = arms.pull([0, 1], rng)
    assert rested.tolist() == [3, 3] and paid.tolist() == [1.0, 1.0]
    assert arms.pull([0], rng)[1].tolist() == [0.0]
    rested, paid = arms.pull([0, 1], rng)
    assert rested.tolist() == [1, 2] and paid.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="do not fall"):
        RecoveringArms(curves[:, ::-1])


def test_a_phase_of_recovering_arms_counts_what_it_saw():
    class Alternate:
        def pulled(self, t: int) -> list[int]:
            return [0] if t % 2 == 0 else []

    play = RecoveringPlay(RecoveringArms(np.array([[0.0, 1.0, 1.0]])), rounds=6, total=6)
    assert play.follow(Alternate(), np.random.default_rng(0)) == pytest.approx(0.5)
    seen = play.records()
    assert seen.count[0].tolist() == [0, 2, 1] and seen.total[0].tolist() == [0, 2, 1]
