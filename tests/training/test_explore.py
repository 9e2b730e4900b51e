"""Exploration: probabilities by hand, special cases, and logs that evaluation can use."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.rewards import Ridge
from surpass.data.truth import Truth
from surpass.errors import InputError
from surpass.evaluation.decisions import evaluate
from surpass.forms import Explorer, Outlook
from surpass.methods.ope.explorers import squarecb
from surpass.parts import part
from surpass.policies.exploring import (
    epsilon_greedy,
    inverse_gap,
    relative_inverse_gap,
    uniform,
)
from surpass.training.explore import explore

MEAN = torch.tensor([[0.9, 0.5, 0.4], [0.2, 0.2, 0.8]], dtype=torch.float64)
SEEN = Outlook(MEAN)


def test_inverse_gap_by_hand():
    p = inverse_gap(10.0)(SEEN)
    assert p[0, 1] == pytest.approx(1 / (3 + 10 * 0.4))
    assert p[0, 2] == pytest.approx(1 / (3 + 10 * 0.5))
    assert torch.allclose(p.sum(1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(inverse_gap(0.0)(SEEN), uniform()(SEEN))
    assert float(inverse_gap(1e9)(SEEN)[1, 2]) == pytest.approx(1.0)


def test_relative_gap_by_hand_and_less_exploration_where_the_best_loss_is_small():
    p = relative_inverse_gap(10.0)(SEEN)
    assert p[0, 1] == pytest.approx(0.1 / (3 * 0.1 + 10 * 0.4))
    low = relative_inverse_gap(10.0)(Outlook(MEAN + 0.09))
    assert float(low[0, 0]) > float(p[0, 0])
    assert torch.allclose(relative_inverse_gap(0.0)(SEEN), uniform()(SEEN))


def test_unavailable_actions_are_never_chosen():
    offered = torch.tensor([[False, True, True], [True, True, False]])
    seen = Outlook(MEAN, available=offered)
    for choose in (uniform(), epsilon_greedy(0.2), inverse_gap(5.0), relative_inverse_gap(5.0)):
        p = choose(seen)
        assert bool((p[~offered] == 0).all())
        assert torch.allclose(p.sum(1), torch.ones(2, dtype=torch.float64))
    assert inverse_gap(5.0)(seen)[0, 2] == pytest.approx(1 / (2 + 5 * 0.1))


G = torch.Generator().manual_seed(0)
X = torch.randn(300, 2, generator=G, dtype=torch.float64)
WORLD = Truth(X, torch.sigmoid(2 * X @ torch.randn(2, 3, generator=G, dtype=torch.float64)), X)


def test_exploring_learns_and_its_log_gives_the_value_of_another_policy():
    form = Explorer(inverse_gap(30.0), Ridge(), None)
    found = explore(form, WORLD, 8, 400, seed=1)
    plain = explore(Explorer(uniform(), Ridge(), None), WORLD, 8, 400, seed=1)
    assert found.earned[0] == plain.earned[0]
    assert found.earned[-1] > plain.earned[-1] + 0.1
    assert found.regret < plain.regret
    assert len(found.log) == 3200
    target = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    result = evaluate(target, found.log, estimators=("ips",))["ips"]
    assert abs(result.value - WORLD.value(target.expand(300, 3))) < 3.5 * result.error
    logged = found.log.propensities
    assert logged is not None
    assert torch.allclose(logged.gather(1, found.log.action[:, None])[:, 0], found.log.propensity)


def test_memory_of_one_batch_and_bad_probabilities():
    assert squarecb().memory == 1 and squarecb(50.0).choose == inverse_gap(50.0)

    @part
    def twice(seen: Outlook, /) -> torch.Tensor:
        return torch.ones_like(seen.mean)

    with pytest.raises(InputError, match="no probabilities"):
        explore(Explorer(twice(), Ridge()), WORLD, 2, 50)
