"""Marginalized weights against exact frequencies, and the theorems that tie estimators together."""

from __future__ import annotations

import pytest
import torch

from surpass.critics.fitted_q import FittedQ
from surpass.critics.minimax_weights import MinimaxWeights
from surpass.evaluation.trajectories import evaluate_trajectories, fitted, trajectory_query
from surpass.methods.ope.trajectories import drl, mwl
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import random_mdp


def world() -> tuple[TabularMDP, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mdp = random_mdp(5, 3, gamma=0.9, branching=3, generator=generator)
    mu = (torch.rand(5, 3, generator=generator, dtype=torch.float64)).softmax(-1)
    pi = (3 * torch.rand(5, 3, generator=generator, dtype=torch.float64)).softmax(-1)
    return mdp, mu, pi


def query_of(n: int, steps: int = 80, seed: int = 0):
    mdp, mu, pi = world()
    log = mdp.rollout(mu, n, steps, torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mdp, mu, pi, trajectory_query(lambda obs: obs @ pi, log, mdp.gamma), log


def test_weights_are_the_exact_ratios_of_discounted_frequencies():
    mdp, mu, pi, query, log = query_of(3000)
    found = MinimaxWeights(ridge=0.0).learn(query)(query)
    exact = (mdp.occupancy(pi) / mdp.occupancy(mu))[log.extras["state"], log.action]
    seen = query.mask * query.discount
    assert float((seen * (found - exact).abs()).sum() / seen.sum()) < 0.06


def test_linear_weights_and_least_squares_temporal_differences_give_one_number():
    _, _, _, query, _ = query_of(400)
    from dataclasses import replace

    w = MinimaxWeights(ridge=0.0).learn(query)(query)
    weighed = float(mwl().score(replace(query, extras={**query.extras, "marginal": w})).mean())
    # the same moments, each step counted gamma^t times, solved for q instead of w
    phi = query.context
    once = torch.nn.functional.one_hot(query.action, 3).double()
    here = (once[..., None] * phi[..., None, :]).flatten(-2)
    under = (query.target[..., None] * phi[..., None, :]).flatten(-2)
    behind = (query.beyond_target[..., None] * query.beyond[:, None, :]).flatten(-2)
    then = torch.cat((under[:, 1:], behind[:, None]), 1)
    d = query.discount[None, :, None]
    left = (here * d).flatten(0, 1).T @ (here - query.gamma * then).flatten(0, 1)
    right = (here * d).flatten(0, 1).T @ query.reward.flatten()
    q = torch.linalg.solve(left, right)
    assert weighed == pytest.approx(float(under[:, 0].mean(0) @ q), rel=1e-8)


def test_estimates_and_intervals_hold_the_exact_value():
    mdp, _, pi, _, log = query_of(800, seed=4)
    exact = float(mdp.evaluate(pi).value)
    found = evaluate_trajectories(
        lambda obs: obs @ pi, log, gamma=mdp.gamma, method="normal", level=0.01,
        estimators={"mwl": mwl(), "drl": drl()},
    )  # fmt: skip
    for name in ("mwl", "drl"):
        assert found[name].low < exact < found[name].high, name
        assert found[name].biased


def test_the_double_score_is_right_where_either_half_is_wrong():
    mdp, mu, pi, query, log = query_of(4000, seed=2)
    from dataclasses import replace

    exact = mdp.evaluate(pi)
    state = log.extras["state"]
    w = (mdp.occupancy(pi) / mdp.occupancy(mu))[state, log.action]
    wrong_q = 3.0 + 0 * exact.q[state]
    wrong_w = torch.ones_like(w)
    for weight, q in ((w, wrong_q), (wrong_w, exact.q[state])):
        held = replace(query, q=q, extras={**query.extras, "marginal": weight})
        score = drl().score(held)
        error = float(score.std()) / len(score) ** 0.5
        assert float(score.mean()) == pytest.approx(float(exact.value), abs=4 * error + 0.01)


def test_folds_keep_episodes_out_of_their_own_weights():
    _, _, _, query, _ = query_of(200)
    both = fitted(query, drl(), folds=2)
    alone = MinimaxWeights().learn(query)(query)
    assert not torch.allclose(both.extras["marginal"], alone)
    assert both.q is not None and FittedQ().per_target
