"""Evolution strategies, and the lifetimes that they are fed with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from surpass.errors import InputError
from surpass.forms import Spaces, adam
from surpass.methods.online.drifts import Evolved, learned_policy, mirror_learning
from surpass.objectives.drift import mirror, no_drift
from surpass.parts import from_json, to_json
from surpass.tasks.catalog import task
from surpass.tasks.protocol import Step
from surpass.training.evolution import OpenES, centered_ranks, evolve
from surpass.training.lifetimes import Lifetime


def test_ranks_are_centered_and_ties_count_nothing():
    found = centered_ranks(torch.tensor([3.0, -1.0, 7.0, 0.0]))
    torch.testing.assert_close(found, torch.tensor([1 / 6, -0.5, 0.5, -1 / 6]))
    torch.testing.assert_close(centered_ranks(torch.ones(6)), torch.zeros(6))


def test_of_a_linear_score_the_estimate_is_the_mean_of_ranked_noise():
    slope = torch.tensor([1.0, -2.0, 0.5])
    strategy = OpenES(torch.zeros(3), 4_000, 0.1)
    many = strategy.ask()
    torch.testing.assert_close(many[:2_000] + many[2_000:], torch.zeros(2_000, 3))
    found = strategy.gradient(many @ slope)
    assert float(torch.cosine_similarity(found, slope, 0)) > 0.999


def test_a_parabola_is_climbed():
    top = torch.tensor([1.0, -0.5, 0.3, 2.0])
    strategy = OpenES(torch.zeros(4), 16, 0.1, adam(0.05), seed=3)
    found = evolve(strategy, lambda many, k: -(many - top).square().sum(-1), 150)
    torch.testing.assert_close(found, top, rtol=0, atol=0.1)
    with pytest.raises(InputError, match="no pairs"):
        OpenES(torch.zeros(2), 5)


@dataclass(frozen=True)
class Lever:
    """One step, two levers: the second pays 1."""

    noise_dim: int = 0
    spaces = Spaces(2, n_actions=2, horizon=1)

    def reset(self, n, generator=None):
        obs = torch.ones(n, 2)
        return {"x": obs}, obs

    def step(self, state, action, noise=None):
        over = torch.ones(len(action), dtype=torch.bool)
        return Step(state, state["x"], action.float(), over, ~over)


LIFE = Lifetime(envs=8, horizon=8, updates=8, epochs=2, minibatches=2, lr=0.05, hidden=(8,))


def scaled(candidate, s):
    """The surrogate times a candidate number."""
    return candidate * mirror(no_drift())(s)


def test_agents_learn_as_far_as_their_candidate_lets_them():
    found = LIFE.run(Lever(), scaled, torch.tensor([[1.0], [0.0], [-1.0], [0.0]]))
    still, up, down = found[1::2], found[0], found[2]
    assert torch.equal(still[0], still[1])  # a pair lives the same luck
    assert float(up) > 0.7 and abs(float(still[0]) - 0.5) < 0.15 and float(down) < 0.3


def test_a_life_needs_pairs_and_discrete_actions():
    with pytest.raises(InputError, match="have no pairs"):
        LIFE.run(Lever(), scaled, torch.zeros(3, 1))
    with pytest.raises(InputError, match="discrete actions"):
        LIFE.run(task("pendulum").simulator, scaled, torch.zeros(2, 1))
    with pytest.raises(InputError, match="batched simulator"):
        learned_policy(2, 1).solve("pendulum")  # type: ignore[arg-type]


def test_what_is_evolved_is_a_part_that_a_recipe_takes():
    found = learned_policy(4, 2, hidden=4, envs=4, horizon=8, updates=2).solve(task("cart-pole"))
    assert isinstance(found, Evolved) and len(found.history) == 2
    assert len(found.drift.weights) == 36
    form = mirror_learning(found.drift, entropy=0.01)
    assert from_json(to_json(form)) == form
