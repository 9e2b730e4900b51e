"""Objectives of learning against hand-computed values and against enumeration of the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from surpass.objectives.counterfactual import (
    counterfactual_risk,
    doubly_robust_gain,
    importance_gain,
    self_normalized_gain,
    standardized_gain,
)
from surpass.objectives.views import Query


def query(target: torch.Tensor) -> Query:
    rho = torch.full((4, 2), 0.5, dtype=torch.float64)
    return Query(
        action=torch.tensor([0, 1, 0, 1]),
        reward=torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64),
        propensity=torch.full((4,), 0.5, dtype=torch.float64),
        target=target,
        reference=rho,
        q=torch.tensor([[0.5, 0.25]] * 4, dtype=torch.float64),
    )


TARGET = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]], dtype=torch.float64)


def test_values_by_hand():
    q = query(TARGET)
    # w = 1.6, 0.4, 0.6, 1.4; w r = 1.6, 0, 0, 1.4; the reference earns 0.5
    assert counterfactual_risk(importance_gain())(q).item() == pytest.approx(3.0 / 4 - 0.5)
    assert counterfactual_risk(self_normalized_gain())(q).item() == pytest.approx(3.0 / 4 - 0.5)
    # sum pi q = 0.45, 0.45, 0.325, 0.325 against 0.375; (w - 1)(r - q) = .3, .15, .2, .3
    rows = torch.tensor([0.375, 0.225, 0.15, 0.25], dtype=torch.float64)
    value = counterfactual_risk(doubly_robust_gain())(q)
    assert value.item() == pytest.approx(rows.mean().item())
    assert counterfactual_risk(doubly_robust_gain(), 2.0)(q).item() == pytest.approx(
        rows.mean().item() - 2.0 * rows.std().item() / math.sqrt(4)
    )
    assert standardized_gain(doubly_robust_gain())(q).item() == pytest.approx(
        (rows.mean() / rows.std()).item()
    )


@pytest.mark.parametrize(
    "objective",
    [counterfactual_risk(importance_gain(), 0.5), counterfactual_risk(self_normalized_gain(), 1.0),
     counterfactual_risk(doubly_robust_gain(), 1.0), standardized_gain(doubly_robust_gain())],
    ids=str,
)  # fmt: skip
def test_gradient_is_that_of_finite_differences(objective):
    logits = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: objective(query(z.softmax(-1))), logits)


@pytest.mark.parametrize("score", [importance_gain(), doubly_robust_gain()], ids=str)
def test_expected_gradient_is_the_gradient_of_the_true_value(score):
    """Over every action and reward that could have been logged, weighted by its probability, the
    gradient of the estimate is the gradient of the value: enumeration, no sampling."""
    torch.manual_seed(3)
    mu = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    rate = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    logits = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def one(action: int, reward: float) -> Query:
        return Query(
            action=torch.tensor([action]), reward=torch.tensor([reward], dtype=torch.float64),
            propensity=mu[action : action + 1], target=logits.softmax(-1)[None],
            reference=mu[None], q=torch.tensor([[0.3, 0.3, 0.6]], dtype=torch.float64),
        )  # fmt: skip

    objective = counterfactual_risk(score)
    expected = sum(
        mu[a] * (rate[a] * objective(one(a, 1.0)) + (1 - rate[a]) * objective(one(a, 0.0)))
        for a in range(3)
    )
    truth = ((logits.softmax(-1) - mu) * rate).sum()
    (ours,) = torch.autograd.grad(expected, logits)
    (exact,) = torch.autograd.grad(truth, logits)
    torch.testing.assert_close(torch.as_tensor(expected), truth)
    torch.testing.assert_close(ours, exact)


def test_self_normalized_does_not_care_where_zero_is_but_ips_does():
    q = query(torch.tensor([[0.9, 0.1]] * 4, dtype=torch.float64))
    q = replace(q, propensity=torch.tensor([0.4, 0.5, 0.5, 0.6], dtype=torch.float64))
    moved = replace(q, reward=q.reward + 7)
    plain, snips = (counterfactual_risk(s) for s in (importance_gain(), self_normalized_gain()))
    assert snips(moved).item() == pytest.approx(snips(q).item())
    assert abs(plain(moved).item() - plain(q).item()) > 0.1
