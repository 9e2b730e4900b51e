"""Reward within a budget of cost: the limits, the binding budget, and the feed it is tried on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from surpass.data.records import Decisions
from surpass.errors import InputError
from surpass.improve.scoring import Rows
from surpass.methods.decisions import learners
from surpass.methods.decisions.budgeted import Budgeted, ad_load
from surpass.policies.tilted import Constant
from surpass.tasks.feed import LEVELS, Feed

N = 4000


def rows(seed=0, n=N) -> Rows:
    """Action 1 earns 1; it costs 1 where x = 1 and nothing where x = 0. Uniform logging, so the
    reference costs 0.25 a row."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy((rng.random(n) < 0.5).astype(np.float64))
    a = torch.from_numpy((rng.random(n) < 0.5).astype(np.int64))
    half = torch.full((n,), 0.5).double()
    log = Decisions(
        context=x[:, None], action=a, reward=a.double(), cost=a * x, propensity=half,
        propensities=half[:, None].expand(n, 2), batch_size=[n],
    )  # fmt: skip
    return Rows.of(log, 0.0, 1.0)


def cost_of(policy) -> float:
    pi = policy(torch.tensor([[0.0], [1.0]]).double(), torch.full((2, 2), 0.5).double())
    return float(pi[1, 1]) / 2


def reward_of(policy) -> float:
    pi = policy(torch.tensor([[0.0], [1.0]]).double(), torch.full((2, 2), 0.5).double())
    return float(pi[:, 1].mean())


def test_a_budget_that_binds_is_kept_and_the_rest_is_earned():
    policy = ad_load(slack=0.0).fit(rows(), None, 0)[0].policy
    assert cost_of(policy) < 0.25 + 0.02
    assert reward_of(policy) > 0.6  # the reference earns 0.5, all of the free context earns 0.5


def test_a_budget_that_does_not_bind_changes_nothing():
    learner = ad_load(slack=5.0)
    assert isinstance(learner, Budgeted)
    free = learner.fit(rows(), None, 0)[0].policy
    assert reward_of(free) > 0.95 and cost_of(free) > 0.45


@pytest.mark.parametrize("n", [N, 200_001])  # more than a policy is learned from
def test_the_reference_itself_exceeds_nothing(n):
    data, learner = rows(n=n), ad_load(slack=0.1)
    same = Constant(2)
    assert isinstance(learner, Budgeted)
    found = learner.excess(data, same, None, 0)
    assert found == pytest.approx(-0.1 * float(data.cost.mean()), abs=1e-9)


def test_a_larger_multiplier_costs_less():
    learner = ad_load()
    assert isinstance(learner, Budgeted)
    costs = [cost_of(learner.at(rows(), mu).policy) for mu in (0.0, 1.0, 4.0)]
    assert costs[0] > costs[1] > costs[2]


def test_logs_without_costs_are_refused_with_the_way_to_mend_them():
    with pytest.raises(InputError, match="--cost NAME"):
        learners("ad-load")[0].fit(replace(rows(), cost=None), None, 0)
    with pytest.raises(InputError, match="every decision cost the same"):
        ad_load().fit(replace(rows(), cost=torch.ones(N)), None, 0)


def test_the_feed_pays_a_geometric_sum_and_logs_what_it_says():
    feed = Feed()
    np.testing.assert_allclose(feed.earned(torch.arange(4)), [0, 1, 1.75, 2.3125])
    log, truth = feed.log(20_000, np.random.default_rng(0))
    taken = log.action[:, None]
    paid = truth["revenue"].gather(1, taken)[:, 0]
    left = truth["left"].gather(1, taken)[:, 0]
    assert float(log.reward.mean()) == pytest.approx(float(paid.mean()), abs=0.02)
    assert float(log.cost.mean()) == pytest.approx(float(left.mean()), abs=0.015)
    assert log.propensities.shape[1] == LEVELS


def test_people_who_are_alike_leave_alike():
    kind = torch.tensor([0.0, 1.0])
    same, apart = Feed(same=True).tire(kind), Feed().tire(kind)
    assert same[0] == same[1] and apart[0] > apart[1]
