"""Evaluation through an instrument: identities, special cases, and the truth of a solved
problem."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from surpass.critics.instruments import InstrumentModel, moment_solve
from surpass.errors import InputError
from surpass.evaluation.trajectories import evaluate_trajectories, fitted, trajectory_query
from surpass.methods.ope.instruments import iv_ope
from surpass.objectives.instruments import (
    instrumental,
    instrumental_direct,
    instrumental_ratio,
    signed_policy,
)
from surpass.objectives.views import TrajectoryQuery
from surpass.tasks.confounded import ConfoundedChain

PI = torch.tensor([[0.1, 0.9], [0.3, 0.7]], dtype=torch.float64)
WORLD = ConfoundedChain()


def act(obs: torch.Tensor) -> torch.Tensor:
    return obs @ PI


def test_signed_policy_reproduces_the_target_through_the_instrument():
    g = torch.Generator().manual_seed(0)
    taken = torch.rand(50, 2, generator=g, dtype=torch.float64)
    taken[:, 1] += torch.where(taken[:, 1] > taken[:, 0], 0.1, -0.1)
    wanted = torch.rand(50, generator=g, dtype=torch.float64)
    c = signed_policy(taken, wanted)
    assert torch.allclose(c.sum(-1), torch.ones(50, dtype=torch.float64))
    assert torch.allclose((c * taken).sum(-1), wanted)
    assert bool((c < 0).any())
    perfect = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(50, 2)
    assert torch.allclose(signed_policy(perfect, wanted), torch.stack((1 - wanted, wanted), -1))


def test_finds_the_truth_where_estimates_without_instrument_do_not():
    truth = float(WORLD.exact().evaluate(PI).value)
    log = WORLD.episodes(3000, 40, torch.Generator().manual_seed(1))
    query = trajectory_query(act, log, WORLD.gamma)
    asked = fitted(query, iv_ope())
    for score in (instrumental(), instrumental_direct(), instrumental_ratio()):
        assert float(score(asked).mean()) == pytest.approx(truth, rel=0.02)
    naive = fitted(query, iv_ope(confounded=False))
    assert float(instrumental()(naive).mean()) > 1.07 * truth


def test_every_step_counts_once_however_long_its_episode():
    """Episodes of 1, 2 and 3 steps that are followed in 0, 1 and 2 of them."""
    steps = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0]]).double()
    bracket = torch.tensor([[9.0, 9, 9], [3, 9, 9], [6, 9, 9]]).double()  # 9 where it is not last
    value = torch.tensor([[1.0], [2.0], [6.0]]).double().expand(3, 3)
    iv = torch.stack((value, torch.ones(3, 3).double(), bracket, steps), -1)
    query = TrajectoryQuery(
        action=torch.zeros(3, 3).long(), reward=bracket, propensity=None, target=None,
        mask=torch.ones(3, 3).double(), gamma=0.5, extras={"iv": iv},
    )  # fmt: skip
    # the followed steps have 3, 6 and 9, of mean 6; V(s_0) has mean 3; 1 / (1 - gamma) is 2
    assert float(instrumental()(query).mean()) == pytest.approx(3 + 2 * 6)
    assert float(instrumental_ratio()(query).mean()) == pytest.approx(2 * 6)
    # deviations of -3 and of 0 + 3 over one step on average
    torch.testing.assert_close(
        instrumental_ratio()(query), 2 * torch.tensor([6.0, 3.0, 9.0]).double()
    )


def test_right_when_either_the_values_or_the_ratios_are():
    truth = float(WORLD.exact().evaluate(PI).value)
    log = WORLD.episodes(3000, 40, torch.Generator().manual_seed(2))
    query = trajectory_query(act, log, WORLD.gamma)
    found = InstrumentModel().learn(query)(query)
    no_ratio = found.clone()
    no_ratio[..., 1] = 1.0  # the bracket of a right Q averages to 0 under any weight of (s, z)
    wrong = instrumental()(replace(query, extras={"iv": no_ratio})).mean()
    assert float(wrong) == pytest.approx(truth, rel=0.02)
    no_value = found.clone()
    no_value[..., 0], no_value[..., 2] = 0.0, query.reward
    wrong = instrumental()(replace(query, extras={"iv": no_value})).mean()
    assert float(wrong) == pytest.approx(truth, rel=0.02)


def test_without_confounding_the_action_is_its_own_instrument():
    log = WORLD.episodes(400, 20, torch.Generator().manual_seed(3))
    query = trajectory_query(act, log, WORLD.gamma)
    own = replace(query, extras={"instrument": query.action})
    free = InstrumentModel(confounded=False)
    assert torch.allclose(free.learn(query)(query), free.learn(own)(own))
    weight = free.learn(query)(query)[..., 1] / query.ratio  # omega, if p(a|s) is as logged
    state = query.context.argmax(-1)
    for s in (0, 1):
        here = weight[state == s]
        assert float(here.std() / here.mean()) < 0.1


def test_moment_solve_is_least_squares_when_tests_are_the_features():
    g = torch.Generator().manual_seed(4)
    x, y = (torch.randn(40, k, generator=g, dtype=torch.float64) for k in (3, 1))
    exact = torch.linalg.lstsq(x, y).solution[:, 0]
    assert torch.allclose(moment_solve(x, x, x.T @ y[:, 0] / 40, 0.0), exact)


def test_evaluation_takes_it_and_says_when_the_instrument_is_missing():
    log = WORLD.episodes(300, 20, torch.Generator().manual_seed(5))
    result = evaluate_trajectories(act, log, gamma=WORLD.gamma, estimators=("iv-ope",))["iv-ope"]
    truth = float(WORLD.exact().evaluate(PI).value)
    assert result.low < truth < result.high
    del log.extras["instrument"]
    with pytest.raises(InputError, match="instrument"):
        evaluate_trajectories(act, log, gamma=WORLD.gamma, estimators=("iv-ope",))
