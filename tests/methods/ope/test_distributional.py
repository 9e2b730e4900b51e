"""Return distributions: densities by hand, a known chain, and the estimator in `evaluate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from surpass.critics.return_models import (
    CategoricalReturns,
    FittedReturns,
    MixtureReturns,
    ReturnModel,
    mixture_logp,
)
from surpass.evaluation.trajectories import evaluate_trajectories, trajectory_query
from surpass.methods.ope.distributional import fle
from surpass.objectives.return_distribution import mean_return, tail_mean, tail_of_returns
from surpass.objectives.views import TrajectoryQuery
from surpass.tasks.lock_chain import CombinationLock
from surpass.tasks.tabular import TabularMDP

QUICK = MixtureReturns(steps=150, components=4, hidden=(32,), lr=1e-2)


def test_the_mixture_density_is_scipys():
    out = torch.tensor([[[0.5, -1.0, -0.3, 0.2, 0.7], [2.0, 0.0, 0.1, -0.5, -0.2]]]).double()
    z = torch.tensor([[0.3, 0.4]]).double()
    weight = torch.softmax(out[0, :, -1], 0).numpy()
    by_hand = sum(
        w * np.prod(stats.norm.pdf(z[0].numpy(), o[:2], np.exp(o[2:4])))
        for w, o in zip(weight, out[0].numpy(), strict=True)
    )
    assert float(mixture_logp(z, out)) == pytest.approx(np.log(by_hand))


def test_the_worst_share_by_hand():
    z = torch.arange(10.0)
    assert float(tail_mean(z, 0.3)) == 1.0
    assert float(tail_mean(z, 0.01)) == 0.0


def filled(samples):
    n = len(samples)
    blank = torch.zeros(n, 1)
    return TrajectoryQuery(
        blank.long(), blank, blank + 1, torch.ones(n, 1, 1), blank + 1,
        extras={"returns": samples},
    )  # fmt: skip


def test_scores_average_to_the_mean_and_to_the_tail():
    samples = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    query = filled(samples)
    assert float(mean_return()(query).mean()) == pytest.approx(float(samples.mean()), abs=1e-6)
    tail = float(tail_of_returns(0.1)(query).mean())
    assert tail == pytest.approx(float(tail_mean(samples.flatten(), 0.1)), abs=0.01)


@pytest.mark.parametrize("model", [QUICK, CategoricalReturns(steps=150, atoms=21, lr=1e-2)])
def test_one_step_gives_the_distribution_of_rewards(model):
    """Action 0 pays 0 or 1 evenly, action 1 always 1; the target takes action 0 seven times in
    ten: P(1) = 0.65."""
    g = torch.Generator().manual_seed(0)
    n = 2000
    action = torch.randint(2, (n, 1), generator=g)
    reward = torch.where(action == 1, 1.0, (torch.rand(n, 1, generator=g) < 0.5).float())
    pi = torch.tensor([0.7, 0.3]).double().expand(n, 1, 2)
    query = TrajectoryQuery(
        action, reward.double(), torch.full((n, 1), 0.5).double(), pi, torch.ones(n, 1).double(),
        context=torch.ones(n, 1, 1),
    )  # fmt: skip
    samples = FittedReturns(model, 20).learn(query)(query)
    assert float((samples > 0.5).double().mean()) == pytest.approx(0.65, abs=0.04)
    assert float((samples[samples > 0.5]).mean()) == pytest.approx(1.0, abs=0.06)


def test_the_longest_episode_may_stand_alone():
    """Its last step is one return, 3, with no spread of its own."""
    alone = QUICK.fit(torch.zeros(1, 2), torch.tensor([[3.0]]).double())
    assert alone(torch.zeros(5, 2)).flatten().tolist() == pytest.approx([3.0] * 5, abs=0.2)
    mask = torch.ones(40, 2).double()
    mask[1:, 1] = 0.0
    query = TrajectoryQuery(
        torch.zeros(40, 2).long(), mask.clone(), mask, torch.ones(40, 2, 1).double(), mask,
        context=torch.ones(40, 2, 1),
    )  # fmt: skip
    samples = FittedReturns(QUICK, 10).learn(query)(query)
    assert torch.isfinite(samples).all()
    assert float(samples.median()) == pytest.approx(1.0, abs=0.15)


def test_two_steps_of_a_chain_carry_the_chance_of_the_first():
    lock = CombinationLock(2)
    log = lock.log(1500, torch.Generator().manual_seed(0))
    pi = torch.tensor([0.6, 0.4]).double()
    query = trajectory_query(lambda o: pi.expand(len(o), -1), log)
    samples = FittedReturns(QUICK, 10).learn(query)(query)
    assert float((samples > 0).double().mean()) == pytest.approx(lock.kept(0.6), abs=0.05)


def test_fitting_again_extends_the_horizon():
    """One state that pays 1: after k fits the return is 1 + gamma + ... + gamma^(k - 1)."""
    mdp = TabularMDP(torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1), 0.5)
    log = mdp.rollout(torch.ones(1, 1), 50, 8, torch.Generator().manual_seed(0))
    query = trajectory_query(lambda o: torch.ones(len(o), 1).double(), log, 0.5)
    for k, total in ((1, 1.0), (3, 1.75)):
        samples = FittedReturns(QUICK, 8, iterations=k).learn(query)(query)
        assert float(samples.median()) == pytest.approx(total, abs=0.15)


class Mean(ReturnModel):
    """Every return is the mean of the targets."""

    def fit(self, x, z):
        return lambda at: z.mean(0).expand(len(at), -1)


@pytest.mark.parametrize(("ended", "total"), [(False, 2.0), (True, 1.5)])
def test_a_cut_is_no_end(ended, total):
    """One state pays 1 at a discount of a half, in episodes of three steps: cut, the return m
    solves m = 1 + m / 2; ended, m = (1 + m / 2 + 1 + m / 2 + 1) / 3."""
    mdp = TabularMDP(torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1), 0.5)
    log = mdp.rollout(torch.ones(1, 1), 20, 3, torch.Generator().manual_seed(0))
    if ended:
        log.truncated, log.terminated = log.terminated, log.truncated
    query = trajectory_query(lambda o: torch.ones(len(o), 1).double(), log, 0.5)
    samples = FittedReturns(Mean(), 2, iterations=40).learn(query)(query)
    assert float(samples.mean()) == pytest.approx(total, abs=1e-6)


def test_it_is_an_estimator_like_the_others():
    lock = CombinationLock(2)
    log = lock.log(600, torch.Generator().manual_seed(1))
    pi = torch.tensor([0.9, 0.1]).double()
    table = evaluate_trajectories(
        lambda o: pi.expand(len(o), -1), log, estimators={"fle": fle(QUICK, samples=4)}
    )
    (row,) = table.results
    assert row.biased and row.value == pytest.approx(2 * lock.kept(0.9) - 1, abs=0.12)
    assert row.gain == pytest.approx(row.value - row.reference, abs=1e-9)
    assert mean_return() == fle().score


def test_a_tail_is_held_against_the_tail_of_the_log():
    lock = CombinationLock(2)
    log = lock.log(600, torch.Generator().manual_seed(1))
    pi = torch.tensor([0.9, 0.1]).double()
    form = fle(Mean(), samples=4, tail=0.25)
    table = evaluate_trajectories(lambda o: pi.expand(len(o), -1), log, estimators={"fle": form})
    (row,) = table.results
    paid = log.reward.double().sum(1)
    assert row.reference == pytest.approx(float(tail_mean(paid, 0.25)), abs=0.01)
    assert row.reference < table.reward - 0.1
    assert row.gain == pytest.approx(row.value - row.reference, abs=1e-9)


def test_rings_and_points_of_the_lock():
    lock = CombinationLock(3)
    log = lock.episodes(4000, 0.5, torch.Generator().manual_seed(0))
    vector, kept = log.extras["rewards"][:, -1], log.reward[:, -1] > 0
    assert float(kept.float().mean()) == pytest.approx(lock.kept(0.5), abs=0.02)
    assert float(vector[kept].norm(dim=1).mean()) == pytest.approx(2.28, abs=0.05)
    assert float(vector[~kept].norm(dim=1).mean()) == pytest.approx(0.28, abs=0.02)
