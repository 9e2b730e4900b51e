"""Evaluation of logged episodes: special cases, padding, intervals."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.fitted_q import FittedQ
from surpass.errors import InputError
from surpass.evaluation.trajectories import evaluate_trajectories, padded, trajectory_query
from surpass.methods.ope.trajectories import fqe
from surpass.tasks.tabular import TabularMDP

S, A, H = 3, 2, 4
G = torch.Generator().manual_seed(0)


def simplex(*shape: int) -> torch.Tensor:
    return torch.softmax(torch.randn(*shape, generator=G, dtype=torch.float64), -1)


MDP = TabularMDP(simplex(S, A, S), torch.rand(S, A, generator=G), simplex(S), 0.95, H)
MU, PI = simplex(S, A), simplex(S, A)


def act(obs: torch.Tensor) -> torch.Tensor:
    return obs.double() @ PI


def test_all_estimators_agree_with_the_exact_value_on_many_episodes():
    log = MDP.rollout(MU, 4000, generator=G, dtype=torch.float64)
    keys = ("tis", "pdis", "sntis", "snpdis", "drt", "sndrt")
    table = evaluate_trajectories(act, log, gamma=0.95, estimators=keys)
    truth = float(MDP.evaluate(PI).value)
    for result in table:
        assert abs(result.value - truth) < 4 * result.error
        assert result.low < truth < result.high or abs(result.value - truth) < 3 * result.error
    model = evaluate_trajectories(
        act, log, gamma=0.95, estimators={"fqe": fqe(FittedQ(by_step=True))}
    )["fqe"]
    assert model.value == pytest.approx(truth, abs=0.02)


def test_the_behavior_policy_itself_is_worth_the_logged_returns():
    log = MDP.rollout(MU, 500, generator=G, dtype=torch.float64)
    table = evaluate_trajectories(
        lambda obs: obs.double() @ MU, log, gamma=0.95, estimators=("tis", "pdis", "snpdis")
    )
    for result in table:
        assert result.value == pytest.approx(table.reward, abs=1e-5)
        assert result.gain == pytest.approx(0.0, abs=1e-5)


def test_rows_of_episodes_pad_to_the_sequences_they_came_from():
    end = torch.tensor([False, False, True])
    mdp = TabularMDP(MDP.P, MDP.r, torch.tensor([0.5, 0.5, 0.0]), 0.95, H, end)
    again = torch.Generator().manual_seed(3)
    sequences = mdp.rollout(MU, 30, generator=again, dtype=torch.float64)
    again.manual_seed(3)
    rows = mdp.transitions(MU, 30, generator=again, dtype=torch.float64)
    one, two = (trajectory_query(act, log, 0.95) for log in (sequences, padded(rows)))
    assert torch.equal(one.mask, two.mask)
    assert torch.allclose(one.paid, two.paid)
    assert torch.allclose(one.ratio, two.ratio)


def test_says_what_does_not_fit():
    log = MDP.rollout(MU, 5, generator=G)
    with pytest.raises(InputError, match="do not sum to 1"):
        trajectory_query(lambda obs: obs.double() @ (2 * PI), log)
    rows = MDP.transitions(MU, 5, generator=G)
    rows.behavior_logp = None
    with pytest.raises(InputError, match="log-prob"):
        padded(rows)
