"""Nets that evaluate a policy, held against closed forms: a linear system with quadratic cost, and
tabular problems."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.dynamics import DynamicsNets
from surpass.critics.policy_values import ValueNets
from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.evaluation.trajectories import evaluate_trajectories
from surpass.methods.ope.trajectories import fqe_nets, model_based
from surpass.tasks.tabular import TabularMDP

GAMMA, SIGMA = 0.9, 0.1
P = (1 + 0.1 * 0.36) / (1 - GAMMA * 0.36)  # of s' = 0.9 s + 0.5 a + noise under a = -0.6 s


def quadratic_log(episodes: int, steps: int, seed: int) -> Transitions:
    """s' = 0.9 s + 0.5 a + 0.1 noise, r = -(s^2 + 0.1 a^2), uniform actions, every episode cut."""
    g = torch.Generator().manual_seed(seed)
    s = 2 * torch.rand(episodes, generator=g) - 1
    rows = []
    for _ in range(steps):
        a = 2 * torch.rand(episodes, generator=g) - 1
        after = 0.9 * s + 0.5 * a + SIGMA * torch.randn(episodes, generator=g)
        rows.append(torch.stack((s, a, -(s.square() + 0.1 * a.square()), after), -1))
        s = after
    table = torch.stack(rows, 1).flatten(0, 1)
    last = torch.arange(len(table)) % steps == steps - 1
    return Transitions(
        obs=table[:, :1], action=table[:, 1:2], reward=table[:, 2], next_obs=table[:, 3:],
        terminated=torch.zeros_like(last), truncated=last,
        episode=torch.arange(len(table)) // steps, batch_size=[len(table)],
    ).described(About(spaces={"action_low": -1.0, "action_high": 1.0}))  # fmt: skip


def control(obs: torch.Tensor) -> torch.Tensor:
    return -0.6 * obs


SMALL = {
    "fqe-nets": fqe_nets(ValueNets(2, (32, 32), 600, 128, 3e-3)),
    "model-based": model_based(DynamicsNets(2, (32, 32), 400, 128, 3e-3)),
}


@pytest.mark.parametrize("key", list(SMALL))
def test_a_linear_controller_is_worth_what_the_riccati_equation_says(key):
    log = quadratic_log(150, 10, 0)
    starts = log.obs[::10, 0]
    cost = GAMMA * P * SIGMA**2 / (1 - GAMMA)
    truth = -float((P * starts.square()).mean()) - cost
    found = evaluate_trajectories(control, log, gamma=GAMMA, estimators={key: SMALL[key]})[key]
    assert found.value == pytest.approx(truth, abs=0.15)  # the log's own return is -3
    assert found.low < truth < found.high
    assert found.gain == pytest.approx(found.value - found.reference, abs=0.15)


def test_nets_follow_what_was_cut_and_stop_at_what_ended():
    """One step of cost 1 in a world without change: cut, it is worth -10 for ever; ended, -1."""
    log = quadratic_log(60, 1, 2)
    log.reward, log.next_obs = -torch.ones(60), log.obs.clone()
    tiny = {"fqe-nets": fqe_nets(ValueNets(2, (16,), 250, 64, 1e-2, (0.5, 0.5)))}
    cut = evaluate_trajectories(control, log, gamma=GAMMA, estimators=tiny)["fqe-nets"]
    assert cut.value == pytest.approx(-10.0, rel=0.1)
    log.terminated, log.truncated = log.truncated, log.terminated
    ended = evaluate_trajectories(control, log, gamma=GAMMA, estimators=tiny)["fqe-nets"]
    assert ended.value == pytest.approx(-1.0, rel=0.1)


@pytest.mark.parametrize("key", list(SMALL))
def test_discrete_actions_in_a_tabular_problem(key):
    g = torch.Generator().manual_seed(5)
    S, A = 3, 2
    P_ = torch.softmax(2 * torch.randn(S, A, S, generator=g, dtype=torch.float64), -1)
    mdp = TabularMDP(P_, torch.rand(S, A, generator=g), torch.ones(S) / S, GAMMA)
    pi = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    log = mdp.rollout(mdp.uniform(), 200, 12, g)
    found = evaluate_trajectories(
        lambda obs: obs.double() @ pi, log, gamma=GAMMA, estimators={key: SMALL[key]}
    )[key]
    assert found.value == pytest.approx(float(mdp.evaluate(pi).value), rel=0.05)


def test_what_weighs_by_densities_says_what_to_take_instead():
    log = quadratic_log(20, 5, 1)
    log.behavior_logp = torch.full_like(log.reward, -0.7)
    with pytest.raises(InputError, match="pdis weighs by the policy's density"):
        evaluate_trajectories(control, log, gamma=GAMMA, estimators=("pdis",))
    with pytest.raises(InputError, match="fqe is for discrete actions; take fqe-nets"):
        evaluate_trajectories(control, log, gamma=GAMMA, estimators=("fqe",))
