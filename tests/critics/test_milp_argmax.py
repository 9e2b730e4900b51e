"""The program that holds a net: brute force over all feasible actions as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from surpass.critics.milp_argmax import Maximizer, best_action, reach
from surpass.errors import InputError
from surpass.methods.theory.combinatorial import (
    _values,
    combinatorial_q,
    myopic,
    one_by_one,
    sequoia,
    worth,
)
from surpass.tasks.restless import capacity_problem


def drawn(seed, inputs=11, scale=3.0):
    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1)]
    net = nn.Sequential(*layers)
    for p in net.parameters():
        p.data *= scale
    return net


@pytest.mark.parametrize("seed", range(6))
def test_the_program_finds_the_best_of_all_feasible_actions(seed):
    world, rng = capacity_problem(6, seed=seed), np.random.default_rng(seed)
    net, state = drawn(seed), rng.random(5)
    action, value = best_action(net, state, world.A, world.b)
    every = world.feasible()
    brute = _values(net, every, np.repeat(state[None], len(every), 0))
    assert value == pytest.approx(float(brute.max()), abs=1e-5)
    assert (world.A @ action <= world.b).all()


def test_ranges_hold_every_hidden_unit():
    net = drawn(3, inputs=4)
    layers = [(m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
              for m in net if isinstance(m, nn.Linear)]  # fmt: skip
    found = reach(layers, np.zeros(4), np.ones(4))
    x = torch.rand(2000, 4)
    with torch.no_grad():
        for (low, high), depth in zip(found, (1, 3), strict=True):
            h = net[:depth](x).numpy()
            assert (h >= low - 1e-5).all() and (h <= high + 1e-5).all()


def test_states_are_solved_once_and_wrong_nets_refused():
    world = capacity_problem(4, seed=1)
    best = Maximizer(drawn(0, inputs=9), world.A, world.b, listed=0)
    state = np.full(5, 0.5)
    assert best(state) is best(state) and best.solved == 1
    tried = Maximizer(best.net, world.A, world.b)(state)
    assert tried[1] == pytest.approx(best(state)[1], abs=1e-5)
    best.forget()
    best(state)
    assert best.solved == 2
    with pytest.raises(InputError, match="ReLU between"):
        best_action(nn.Sequential(nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 1)), state, world.A,
                    world.b)  # fmt: skip
    with pytest.raises(InputError, match="feasible"):
        best_action(best.net, state, world.A, np.array([-1.0]))


def test_expected_rewards_by_sampling_and_myopic_by_hand():
    world, rng = capacity_problem(4, budget=2, seed=0), np.random.default_rng(0)
    levels, pulls = np.array([0, 1, 2, 3]), np.array([1.0, 0, 1, 0])
    j = np.arange(4)
    paid = [world.reward[j, world.step(levels, pulls, rng)].sum() for _ in range(20_000)]
    assert np.mean(paid) == pytest.approx(world.expected(levels, pulls), abs=0.04)
    top = np.argsort(-world.gains(levels))[:2]
    chosen = myopic(world)(np.append(levels / 3, 0.0))
    positive = [k for k in top if world.gains(levels)[k] > 0]
    assert set(positive) <= set(np.flatnonzero(chosen)) and chosen.sum() <= 2


def test_q_learning_with_exact_maxima_beats_doing_nothing():
    world = capacity_problem(4, budget=2, seed=0, horizon=4)
    net = combinatorial_q((8,), episodes=12, warm=200)(world)
    assert sequoia((8,)).solve == combinatorial_q((8,), 40, 0.99, seed=0)
    ours = worth(world, lambda s: Maximizer(net, world.A, world.b)(s)[0], 3, seed=1)
    nothing = worth(world, lambda s: np.zeros(4), 3, seed=1)
    assert ours > nothing
    pulls = one_by_one(net, world)(np.full(5, 0.5))
    assert (world.A @ pulls <= world.b).all()
