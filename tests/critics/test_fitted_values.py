"""Fitted Q evaluation against exact values of tabular problems."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.fitted_values import fit_values
from surpass.tasks.point import PointMass, point_log
from surpass.tasks.worlds import random_mdp


def test_a_tabular_policy_is_worth_what_is_exact():
    generator = torch.Generator().manual_seed(0)
    mdp = random_mdp(6, 3, gamma=0.9, branching=3, generator=generator)
    log = mdp.transitions(mdp.uniform(), 4000, 12, generator)
    pi = torch.rand(6, 3, generator=generator, dtype=torch.float64).softmax(-1)
    found = fit_values(log, lambda obs: obs.double() @ pi, actions=3, gamma=0.9, features=None)
    exact = mdp.evaluate(pi)
    states = torch.eye(6)
    assert float((found.q(states) - exact.q).abs().max()) < 0.05
    assert float((found.value(states) - exact.v).abs().max()) < 0.05


def test_termination_stops_the_value_and_truncation_does_not():
    mdp = random_mdp(1, 1, gamma=0.9)
    log = mdp.transitions(mdp.uniform(), 5, 20)
    reward = float(mdp.r)
    one = lambda obs: torch.ones(len(obs), 1)  # noqa: E731
    on = fit_values(log, one, actions=1, gamma=0.9, features=None, ridge=1e-9)
    assert float(on.value(torch.ones(1, 1))) == pytest.approx(reward / 0.1, rel=1e-3)
    log.terminated[:] = True
    off = fit_values(log, one, actions=1, gamma=0.9, features=None, ridge=1e-9)
    assert float(off.value(torch.ones(1, 1))) == pytest.approx(reward, rel=1e-3)


def test_controllers_that_stay_where_the_log_is_are_ranked_as_they_deserve():
    log = point_log({"medium": 0.5, "random": 0.5}, 12_000, seed=1)
    starts = log.obs[:: PointMass().horizon]

    def controller(gain: float, aim: float):
        def act(obs):
            place = obs[:, :2] - torch.tensor([aim, 0.0])
            return (-gain * (2 * place + 1.5 * obs[:, 2:])).clamp(-1, 1)

        return act

    found = [
        float(fit_values(log, controller(gain, aim), gamma=0.95).value(starts).mean())
        for gain, aim in ((1.0, 0.0), (1.0, 0.5), (1.0, 1.2))
    ]
    assert found == sorted(found, reverse=True)
