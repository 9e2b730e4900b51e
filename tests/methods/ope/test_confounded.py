"""Bridge functions: exact on the population, and the naive gradient where nothing is hidden."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.bridges import Observed, bridge
from surpass.errors import InputError
from surpass.methods.ope.confounded import ascent, confounded_pomdp_pg, unconfounded
from surpass.tasks.pomdp import ConfoundedPOMDP, hidden_need

WORLD = hidden_need()
LOGITS = torch.randn(WORLD.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def exact(world, logits):
    theta = logits.clone().requires_grad_()
    value = world.value(torch.softmax(theta, -1))
    return float(value.detach()), torch.autograd.grad(value, theta)[0]


def brute_force(world: ConfoundedPOMDP, pi: torch.Tensor) -> float:
    """The value by listing hidden states, observations and actions of two decisions."""
    S, X, A = len(world.start), *world.shape[1:]
    total = 0.0
    for s1 in range(S):
        for o1 in range(X):
            for a1 in range(A):
                p = float((world.start @ world.first)[s1] * world.emission[s1, o1])
                p *= float(pi[X, o1, a1])
                total += p * float(world.r[s1, a1])
                for s2 in range(S):
                    for o2 in range(X):
                        for a2 in range(A):
                            q = p * float(world.P[s1, a1, s2] * world.emission[s2, o2])
                            total += q * float(pi[o1, o2, a2] * world.r[s2, a2])
    return total


def test_the_oracle_equals_a_sum_over_all_histories():
    from dataclasses import replace

    world, pi = replace(WORLD, horizon=2), torch.softmax(LOGITS, -1)
    assert float(world.value(pi)) == pytest.approx(brute_force(world, pi), abs=1e-12)


def test_bridges_are_exact_on_the_population():
    value, gradient = exact(WORLD, LOGITS)
    found = bridge(WORLD.population(), LOGITS, 1e-14)
    assert found.value == pytest.approx(value, abs=1e-7)
    torch.testing.assert_close(found.gradient, gradient, atol=1e-7, rtol=1e-6)


def test_the_naive_gradient_is_misled_by_what_is_hidden_and_right_where_nothing_is():
    from dataclasses import replace

    _, gradient = exact(WORLD, LOGITS)
    off = unconfounded()(WORLD.population(), LOGITS).gradient - gradient
    assert float(off.norm() / gradient.norm()) > 1.0
    randomized = replace(WORLD, behavior=torch.full((3, 2), 0.5, dtype=torch.float64))
    right = unconfounded()(randomized.population(), LOGITS).gradient
    torch.testing.assert_close(right, exact(randomized, LOGITS)[1], atol=1e-10, rtol=1e-8)


def test_equal_episodes_are_gathered_and_the_population_is_the_limit():
    log = WORLD.log(100_000, torch.Generator().manual_seed(1))
    assert log.episodes == 100_000 and len(log.weight) <= 3**4 * 2**3
    assert float(log.weight.sum()) == pytest.approx(1.0)
    everything = WORLD.population()
    assert float(everything.weight.sum()) == pytest.approx(1.0)
    mean, limit = log.weight @ log.reward, everything.weight @ everything.reward
    torch.testing.assert_close(mean, limit, atol=0.02, rtol=0.0)


def test_ascent_on_the_population_climbs_and_says_its_value():
    form = confounded_pomdp_pg(steps=15, ridge=1e-14)
    found = form.solve(WORLD.population())
    uniform = torch.full(WORLD.shape, 0.5, dtype=torch.float64)
    assert float(WORLD.value(found.probabilities)) > float(WORLD.value(uniform)) + 0.2
    assert found.value == pytest.approx(float(WORLD.value(found.probabilities)), abs=1e-5)
    misled = ascent(unconfounded(), steps=15)(WORLD.population())
    assert float(WORLD.value(misled.probabilities)) < float(WORLD.value(found.probabilities))


def test_observations_that_tell_nothing_show_in_the_condition_number():
    clear, blind = hidden_need(0.9), hidden_need(1 / 3)
    numbers = [bridge(w.population(), LOGITS, 1e-9).condition for w in (clear, blind)]
    assert numbers[1] > 1e6 * numbers[0]


def test_a_log_without_the_observation_before_is_refused():
    with pytest.raises(InputError, match="one observation more"):
        Observed.of(torch.zeros(2, 3).long(), torch.zeros(2, 3).long(), torch.zeros(2, 3), 3, 2)
