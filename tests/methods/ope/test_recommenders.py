"""A recommender that learns window by window: what it counts, when it is served, and its world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from surpass.critics.recommender import Factors, Recommender
from surpass.methods.ope.recommenders import grubhub_online
from surpass.tasks.drifting_tastes import DriftingTastes
from surpass.training.explore import explore


@dataclass
class Window:
    context: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor


def window(clicked=0, n=400, actions=3, seed=0) -> Window:
    """One user; only the item of action `clicked` is ever clicked."""
    g = torch.Generator().manual_seed(seed)
    action = torch.randint(actions, (n,), generator=g)
    context = torch.tensor([0.0, *range(actions)]).double().expand(n, -1)
    return Window(context, action, (action == clicked).double())


def test_one_pass_counts_every_row_once_and_finds_the_clicked_item():
    learning = Recommender(1, 5, lr=0.1, margin=1.0).begin(400, 4, 3, 0)
    for k in range(3):
        learning.learn(window(clicked=1, seed=k))
    assert learning.processed == 3 * 400
    assert int(learning.outlook(window().context[:1]).mean.argmax()) == 1
    assert learning.losses[-1] < 0.3 < learning.losses[0]


def test_training_anew_processes_its_whole_memory_every_window():
    learning = Recommender(1, 5, memory=2, passes=2, held=0.25).begin(400, 4, 3, 0)
    for k in range(3):
        learning.learn(window(seed=k))
    # 300 of the newest window (its last quarter is the gate's), all of the one before; two passes
    assert learning.processed == 2 * (300 + 700 + 700)


def test_a_static_recommender_is_scored_but_never_learns():
    learning = Recommender(1, 5, memory=0).begin(400, 4, 3, 0)
    before = learning.outlook(window().context).mean
    learning.learn(window())
    assert learning.processed == 0 and len(learning.losses) == 1
    torch.testing.assert_close(learning.outlook(window().context).mean, before)


def test_the_gate_keeps_what_is_served_until_a_candidate_is_good_enough():
    closed = Recommender(1, 5, lr=0.1, margin=-1.0).begin(400, 4, 3, 0)
    before = closed.outlook(window().context).mean
    closed.learn(window(clicked=1))
    torch.testing.assert_close(closed.outlook(window().context).mean, before)
    (reading,) = closed.gates
    assert not reading.promoted and reading.gain > 0.2
    taken = reading.candidate[:, 1].mean()
    assert reading.value == pytest.approx(float(taken), abs=0.15)


def test_new_items_start_at_the_mean_of_the_known():
    net = Factors(1, 4, 2)
    known, fresh = torch.tensor([0, 1]), torch.tensor([3])
    mean = net.item.weight[known].mean(0).clone()
    net.start_items(fresh, known)
    torch.testing.assert_close(net.item.weight[3], mean)


def test_tastes_turn_without_changing_length_and_new_items_get_new_numbers():
    world = DriftingTastes(50, 20, angle=0.3, renewed=0.1, seed=0)
    rng, before = np.random.default_rng(0), np.linalg.norm(world.tastes, axis=1)
    first = world.tastes.copy()
    for _ in range(5):
        world.scene(3, rng)
    np.testing.assert_allclose(np.linalg.norm(world.tastes, axis=1), before)
    assert np.abs(world.tastes - first).max() > 0.1
    assert sorted(world.item)[-2:] == [20, 21] and len(set(world.item)) == 20


def test_its_log_has_exact_propensities():
    world = DriftingTastes(20, 5, seed=0)
    found = explore(grubhub_online(20, 10), world, 3, 50, seed=0)
    chosen = found.log.propensities.gather(1, found.log.action[:, None])[:, 0]
    torch.testing.assert_close(found.log.propensity, chosen)
    torch.testing.assert_close(found.log.propensities.sum(1), torch.ones(150).double())
