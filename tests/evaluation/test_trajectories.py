"""Evaluation of logged episodes: special cases, padding, intervals."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.fitted_q import FittedQ
from surpass.errors import InputError
from surpass.evaluation.trajectories import evaluate_trajectories, padded, trajectory_query
from surpass.methods.ope.trajectories import fqe, star
from surpass.registry import build
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
    with pytest.raises(InputError, match="a single episode says nothing"):
        evaluate_trajectories(act, log[:1], estimators=("pdis",))
    rows = MDP.transitions(MU, 5, generator=G)
    rows.behavior_logp = None
    with pytest.raises(InputError, match="pdis weighs by the behavior policy's log-prob"):
        evaluate_trajectories(act, rows, estimators=("pdis",))
    endless = TabularMDP(MDP.P, MDP.r, MDP.d0, 0.95).rollout(MU, 20, 6, G)
    with pytest.raises(InputError, match="give a discount below 1"):
        evaluate_trajectories(act, endless, estimators=("fqe-nets",))
    with pytest.raises(InputError, match="one value for all steps would be infinite"):
        FittedQ(by_step=False).learn(trajectory_query(act, endless, 1.0))


@pytest.mark.parametrize("key", ["fqe", "mwl", "drl", "star-arp"])
def test_a_cut_is_no_end(key):
    """Episodes of an endless problem, cut after eight steps: taking the cuts for ends would lose
    more than half of the value."""
    generator = torch.Generator().manual_seed(1)
    mdp = TabularMDP(MDP.P, MDP.r, MDP.d0, 0.95)
    log = mdp.rollout(MU, 3000, 8, generator, dtype=torch.float64)
    form = star(last=1) if key == "star-arp" else build(key)
    truth = float(mdp.evaluate(PI).value)
    found = evaluate_trajectories(act, log, gamma=0.95, estimators={key: form})[key]
    assert found.value == pytest.approx(truth, rel=0.04)
    log.truncated, log.terminated = log.terminated, log.truncated
    ended = evaluate_trajectories(act, log, gamma=0.95, estimators={key: form})[key]
    assert ended.value < 0.5 * truth


def test_what_a_model_is_compared_with_goes_on_behind_a_cut_too():
    """The logging policy itself: a model's gain is nothing, although it values what was cut off."""
    generator = torch.Generator().manual_seed(3)
    mdp = TabularMDP(MDP.P, MDP.r, MDP.d0, 0.95)
    log = mdp.rollout(MU, 2000, 6, generator, dtype=torch.float64)
    found = evaluate_trajectories(
        lambda obs: obs @ MU, log, gamma=0.95, estimators=("fqe", "mwl", "pdis"), method="normal"
    )
    endless = float(mdp.evaluate(MU).value)
    for key in ("fqe", "mwl"):
        assert found[key].reference == pytest.approx(endless, rel=0.03)
        assert abs(found[key].gain) < 0.03 * endless
    assert found["pdis"].reference == pytest.approx(found.reward) and found.reward < 0.5 * endless


def test_a_cut_before_the_horizon_is_followed_step_by_step():
    """Half of the episodes are cut at random before the horizon: values by step, discount 1."""
    generator = torch.Generator().manual_seed(2)
    mdp = TabularMDP(MDP.P, MDP.r, MDP.d0, 1.0, H)
    rows = mdp.transitions(MU, 6000, generator=generator, dtype=torch.float64)
    step, cut = rows.extras["step"], torch.rand(6000, generator=generator) < 0.5
    at = torch.randint(1, H, (6000,), generator=generator)
    rows = rows[~cut[rows.episode] | (step < at[rows.episode])]
    last = torch.cat((rows.episode[1:] != rows.episode[:-1], torch.tensor([True])))
    rows.truncated, rows.terminated = last, torch.zeros_like(last)
    found = evaluate_trajectories(act, rows, gamma=1.0, estimators=("fqe",))["fqe"]
    assert found.value == pytest.approx(float(mdp.evaluate(PI).value), rel=0.03)
