"""Scores of episodes against the exact values of a small decision problem, by full enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from surpass.critics.fitted_q import FittedQ
from surpass.objectives.scores import linearized
from surpass.objectives.trajectory_scores import (
    abstract_reward_process,
    at_end,
    averaged,
    cumulative,
    last_ratios,
    marginal,
    modeled_path,
    path_alone,
    per_step,
    return_below,
    trajectory,
)
from surpass.objectives.views import TrajectoryQuery
from surpass.tasks.tabular import TabularMDP

S, A, H, GAMMA = 2, 2, 3, 0.9
G = torch.Generator().manual_seed(7)


def simplex(*shape: int) -> Tensor:
    return torch.softmax(1.5 * torch.randn(*shape, generator=G, dtype=torch.float64), -1)


MDP = TabularMDP(
    simplex(S, A, S), torch.randn(S, A, generator=G, dtype=torch.float64), simplex(S), GAMMA, H
)
MU, PI = simplex(S, A), simplex(S, A)
EXACT = MDP.evaluate(PI)


def enumerated() -> tuple[TrajectoryQuery, Tensor, Tensor]:
    """Every path of states and actions, with its probability under mu, and its states [N, T]."""
    states, actions, chance = [], [], []
    for path in itertools.product(*([range(S), range(A)] * H)):
        s, a = torch.tensor(path[0::2]), torch.tensor(path[1::2])
        p = MDP.d0[s[0]] * MU[s, a].prod() * MDP.P[s[:-1], a[:-1], s[1:]].prod()
        states.append(s)
        actions.append(a)
        chance.append(p)
    s, a = torch.stack(states), torch.stack(actions)
    query = TrajectoryQuery(
        action=a, reward=MDP.r[s, a], propensity=MU[s, a], target=PI[s],
        mask=torch.ones(len(s), H, dtype=torch.float64), gamma=GAMMA,
        context=torch.eye(S, dtype=torch.float64)[s],
    )  # fmt: skip
    return query, torch.stack(chance), s


QUERY, CHANCE, STATES = enumerated()


@pytest.mark.parametrize("weight", [at_end(), cumulative(), last_ratios()])
def test_importance_sampling_is_unbiased(weight):
    assert torch.allclose(CHANCE @ trajectory(weight)(QUERY), EXACT.value, atol=1e-12)


def test_doubly_robust_is_unbiased_for_any_model_and_exact_for_the_right_one():
    wrong = replace(QUERY, q=torch.randn(len(CHANCE), H, A, generator=G, dtype=torch.float64))
    steps = torch.arange(H)
    # a model of the state alone keeps the estimate unbiased; one drawn per path would not be
    table = torch.randn(H, S, A, generator=G, dtype=torch.float64)
    wrong = replace(QUERY, q=table[steps, STATES])
    score = trajectory(cumulative(), modeled_path())
    assert torch.allclose(CHANCE @ score(wrong), EXACT.value, atol=1e-12)
    right = replace(QUERY, q=EXACT.q[steps, STATES])
    assert torch.allclose(CHANCE @ score(right), EXACT.value, atol=1e-12)
    assert torch.allclose(CHANCE @ path_alone()(right), EXACT.value, atol=1e-12)
    spread = CHANCE @ (score(right) - EXACT.value).square()
    assert spread < CHANCE @ (trajectory(cumulative())(QUERY) - EXACT.value).square()


def test_exact_marginal_ratios_give_the_exact_value():
    ratio = (MDP.occupancy(PI) / MDP.occupancy(MU))[torch.arange(H), STATES, QUERY.action]
    query = replace(QUERY, extras={"marginal": ratio})
    assert torch.allclose(CHANCE @ trajectory(marginal())(query), EXACT.value, atol=1e-12)


def test_self_normalized_weights_average_to_one_and_shift_with_the_reward():
    query = replace(QUERY, weights=CHANCE)
    w = per_step(cumulative())(query)
    assert torch.allclose(CHANCE @ w, torch.ones(H, dtype=torch.float64), atol=1e-12)
    value = averaged(trajectory(per_step(cumulative())))
    moved = replace(query, reward=query.reward + 2.0)
    gap = value(moved) - value(query)
    assert torch.allclose(gap, 2.0 * (GAMMA ** torch.arange(H, dtype=torch.float64)).sum())
    # under the true probabilities the mean weight is 1, so normalizing changes nothing
    assert torch.allclose(value(query), EXACT.value, atol=1e-12)


def test_influence_scores_average_to_the_value_they_came_from():
    rows = torch.multinomial(CHANCE, 200, replacement=True, generator=G)
    some = QUERY.rows(rows)
    value = averaged(trajectory(per_step(at_end())))
    scores = linearized(value)(some)
    assert scores.mean() == pytest.approx(float(value(some)), abs=1e-12)
    w = some.ratio.prod(1)
    hand = (w * (some.paid - float(value(some)))) / w.mean()  # of the ratio of two means
    assert torch.allclose(scores - scores.mean(), hand, atol=1e-10)


def test_nothing_behind_the_end_counts():
    mask = QUERY.mask.clone()
    mask[:, 2] = 0
    cut = replace(QUERY, mask=mask, reward=QUERY.reward * mask)
    spoiled = replace(
        cut, reward=cut.reward + 5 * (1 - mask), propensity=cut.propensity * 0.5 ** (1 - mask)
    )
    for weight in (at_end(), cumulative(), last_ratios(2)):
        assert torch.allclose(trajectory(weight)(cut), trajectory(weight)(spoiled))


def test_distribution_function_of_returns_is_unbiased():
    for limit in (-1.0, 0.0, 1.0):
        under = CHANCE * QUERY.ratio.prod(1)
        truth = under[QUERY.paid <= limit].sum()
        assert torch.allclose(CHANCE @ return_below(limit)(QUERY), truth, atol=1e-12)


# ------------------------------------------------------------------------------------------ STAR


def test_star_with_states_as_bins_and_one_ratio_is_the_model():
    query = replace(QUERY, weights=CHANCE, extras={"bin": STATES})
    found = abstract_reward_process(1, H)(query)
    assert torch.allclose(found, EXACT.value, atol=1e-12)
    assert torch.allclose(abstract_reward_process(None, H)(query), EXACT.value, atol=1e-12)


def test_star_with_steps_as_bins_is_weighted_per_decision_importance_sampling():
    rows = torch.multinomial(CHANCE, 300, replacement=True, generator=G)
    some = QUERY.rows(rows)
    steps = torch.arange(H).expand(300, -1)
    star = abstract_reward_process(None, H)(replace(some, extras={"bin": steps}))
    r = (some.ratio.cumprod(1) * some.reward).sum(0) / some.ratio.cumprod(1).sum(0)
    # the chain from step to step carries w_t / w_t, so only the rewards are weighted
    hand = averaged(trajectory(per_step(cumulative())))(some)
    assert torch.allclose(r @ some.discount, hand)
    assert torch.allclose(star, hand, atol=1e-12)


def test_star_with_one_bin_is_pooled_reward_times_length():
    some = QUERY.rows(slice(0, 40))
    star = abstract_reward_process(1)(replace(some, extras={"bin": torch.zeros(40, H)}))
    w = some.ratio
    stay = w[:, :-1].sum() / w.sum()
    assert torch.allclose(star, (w * some.reward).sum() / w.sum() / (1 - GAMMA * stay))


def test_star_is_consistent_for_bins_that_hide_the_state_only_with_all_ratios():
    hidden = replace(QUERY, weights=CHANCE, extras={"bin": torch.arange(H).expand_as(STATES)})
    assert torch.allclose(abstract_reward_process(None, H)(hidden), EXACT.value, atol=1e-12)
    assert abs(float(abstract_reward_process(1, H)(hidden) - EXACT.value)) > 1e-3


def test_fitted_q_by_step_is_exact_on_every_state_and_action():
    found = FittedQ(by_step=True, ridge=1e-9).learn(QUERY)(QUERY)
    # with one path each, counts do not follow P, so compare the last step, which has no next state
    assert torch.allclose(found[:, -1], EXACT.q[-1][STATES[:, -1]], atol=1e-6)
    rows = torch.multinomial(CHANCE, 60_000, replacement=True, generator=G)
    learned = FittedQ(by_step=True).learn(QUERY.rows(rows))(QUERY)
    truth = EXACT.q[torch.arange(H), STATES]
    assert float((learned - truth).abs().max()) < 0.05
