"""Decision policies against values computed by hand, and the laws of sampling."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surpass.errors import InputError
from surpass.policies.action_values import LinearValues, MLPValues
from surpass.policies.categorical import (
    Greedy,
    OneAction,
    ReferencePolicy,
    Softmax,
    WithReference,
    draw,
    n_inputs_of,
    needs_reference,
    predict,
    probabilities,
    sample,
)
from surpass.policies.tilted import Capped, Constant, Mixture, Tilted, rebuild, specification

WEIGHT = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
BIAS = torch.tensor([0.0, 0.5, 0.0])
X = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
RHO = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.0, 0.8]], dtype=torch.float64)


def linear() -> LinearValues:
    return LinearValues.of(WEIGHT, BIAS)


def test_linear_values_by_hand_with_both_links():
    torch.testing.assert_close(linear()(X), torch.tensor([[1, 0.5, -1], [0, 2.5, 0]]).double())
    odds = LinearValues.of(WEIGHT, BIAS, "sigmoid", low=2.0, high=6.0)(X)
    assert odds[0, 1].item() == pytest.approx(2 + 4 / (1 + math.exp(-0.5)))


def test_softmax_tilts_the_reference_by_hand_and_leaves_unsupported_actions_alone():
    p = Softmax(linear(), temperature=2.0)(X, RHO)
    raw = [0.5 * math.exp(0.5), 0.3 * math.exp(0.25), 0.2 * math.exp(-0.5)]
    torch.testing.assert_close(p[0], torch.tensor([v / sum(raw) for v in raw]).double())
    # the second row's best action has reference 0; the other two have equal values
    torch.testing.assert_close(p[1], RHO[1])


def test_softmax_with_a_uniform_base_forgets_the_reference_but_not_its_support():
    p = Softmax(linear(), base="uniform")(X, RHO)
    raw = [math.exp(1.0), math.exp(0.5), math.exp(-1.0)]
    torch.testing.assert_close(p[0], torch.tensor([v / sum(raw) for v in raw]).double())
    torch.testing.assert_close(p[1], torch.tensor([0.5, 0.0, 0.5]).double())


def test_greedy_shares_ties_by_its_base_and_is_the_limit_of_softmax():
    p = Greedy(linear())(X, RHO)
    torch.testing.assert_close(p, torch.tensor([[1.0, 0, 0], [0.2, 0, 0.8]]).double())
    torch.testing.assert_close(Softmax(linear(), temperature=1e-3)(X, RHO), p)
    torch.testing.assert_close(Greedy(linear(), "uniform")(X, RHO)[1], p.new_tensor([0.5, 0, 0.5]))


def test_one_action_falls_back_to_the_reference_where_that_never_takes_it():
    p = OneAction(1, 3)(X, RHO)
    torch.testing.assert_close(p, torch.stack([RHO.new_tensor([0, 1.0, 0]), RHO[1]]))


def test_cap_holds_greedy_near_a_reference_by_hand():
    rho = torch.tensor([[0.04, 0.46, 0.5]], dtype=torch.float64)
    p = Capped(Greedy(LinearValues.of(WEIGHT, BIAS)), 5.0)(X[:1], rho)
    # min(1, 0.2) stays, 0.8 goes to rho in proportion
    torch.testing.assert_close(p[0], rho.new_tensor([0.2 + 0.8 * 0.04, 0.8 * 0.46, 0.8 * 0.5]))


def test_network_starts_at_its_base_and_standardizes():
    net = MLPValues(2, 3, (8,)).standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(net.mean, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(net.scale, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(Softmax(net)(X, RHO), RHO)


@pytest.mark.parametrize(
    "policy",
    [Softmax(linear(), 0.7), Greedy(linear(), "uniform"), OneAction(2, 3), ReferencePolicy(),
     Capped(Softmax(MLPValues(2, 3, (4,)).standardize(X.float() + 1)), 3.0)],
    ids=lambda p: type(p).__name__,
)  # fmt: skip
def test_rebuilt_from_its_specification_and_state_it_is_the_same(policy):
    again = rebuild(specification(policy))
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again(X, RHO), policy(X, RHO))
    assert specification(again) == specification(policy)


def test_unavailable_actions_get_nothing_and_the_rest_is_scaled():
    available = torch.tensor([[True, False, True], [True, True, True]])
    p = probabilities(ReferencePolicy(), X, RHO, available)
    torch.testing.assert_close(p[0], RHO.new_tensor([5 / 7, 0, 2 / 7]))
    torch.testing.assert_close(p[1], RHO[1])
    with pytest.raises(InputError, match="row 1: the reference takes none"):
        probabilities(ReferencePolicy(), X, RHO, torch.tensor([[1, 1, 1], [0, 1, 0]]).bool())


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="2 contexts"):
        probabilities(ReferencePolicy(), X, RHO[:1])
    with pytest.raises(InputError, match="not one of 3 actions"):
        OneAction(3, 3)
    with pytest.raises(InputError, match="temperature is positive"):
        Softmax(linear(), 0.0)


@given(st.lists(st.floats(0.0, 5.0), min_size=2, max_size=8).filter(lambda w: sum(w) > 0.01))
def test_draws_have_the_propensity_they_name(weights):
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    action, propensity = draw(p.expand(4000, -1), torch.Generator().manual_seed(1))
    assert torch.equal(propensity, p[action] / p.sum())
    frequency = torch.bincount(action, minlength=len(p)) / 4000
    assert bool((frequency[p == 0] == 0).all())
    # 5.5 standard errors: about 1e-7 over all examples
    assert bool(((frequency - p).abs() <= 5.5 * (p * (1 - p) / 4000).sqrt() + 1e-9).all())


def test_sample_and_predict_agree_with_probabilities():
    policy = Capped(Softmax(linear()), 20.0)
    p = probabilities(policy, X, RHO)
    action, propensity = sample(policy, X, RHO, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(propensity, p.gather(1, action[:, None])[:, 0])
    assert predict(policy, X, RHO).tolist() == p.argmax(1).tolist() == [0, 2]


def test_the_number_of_inputs_is_found_inside():
    assert n_inputs_of(Mixture([Capped(Softmax(linear())), OneAction(0, 3)], [0.5, 0.5])) == 2
    assert n_inputs_of(Tilted(7, 3, 1.0)) == 7
    assert n_inputs_of(OneAction(0, 3)) == 0
    assert needs_reference(Capped(OneAction(0, 3)))
    assert not needs_reference(WithReference(Capped(OneAction(0, 3)), Constant(3)))
    with pytest.raises(InputError, match="must not need another"):
        WithReference(OneAction(0, 3), ReferencePolicy())
