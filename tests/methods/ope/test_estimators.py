"""The recipes: what each returns, and that special cases are each other."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from surpass.data.records import Decisions
from surpass.evaluation.decisions import DEFAULT, evaluate
from surpass.evaluation.estimation import candidates
from surpass.methods.ope.estimators import (
    clipped_ips,
    dm,
    dr,
    dros,
    es_ips,
    ips,
    mrdr,
    sg_ips,
    sndr,
    snips,
    switch_dr,
)
from surpass.registry import build, find

A, D = 4, 3
W = torch.randn(A, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def logged(n: int) -> tuple[Decisions, Tensor]:
    """Softmax logging of linear scores, rewards in {0, 1}, and a sharper target [n, A]."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    mu, pi = torch.softmax(0.5 * x @ W.T, -1), torch.softmax(1.5 * x @ W.T, -1)
    action = torch.multinomial(mu, 1, generator=g)
    reward = torch.bernoulli(torch.sigmoid(x @ W.T - 0.5).gather(1, action)[:, 0], generator=g)
    return Decisions(
        context=x, action=action[:, 0], reward=reward, propensity=mu.gather(1, action)[:, 0],
        propensities=mu, batch_size=[n],
    ), pi  # fmt: skip


def test_registered_under_their_keys():
    for key in DEFAULT:
        assert find(key).form == "Estimator"
        assert find(key).classic
    assert build("switch-dr", tau=3.0) == switch_dr(3.0)


def test_only_unbiased_estimators_may_promote():
    biased = {key: build(key).biased for key in DEFAULT}
    assert [key for key, value in biased.items() if not value] == ["ips", "dr", "mrdr"]


def test_special_cases_give_the_same_numbers():
    log, pi = logged(1500)
    forms = {
        "ips": ips(), "clipped": clipped_ips(inf), "sg": sg_ips(0.0),
        "es": es_ips(1.0), "dr": dr(), "dm": dm(),
        "switch all": switch_dr(inf), "switch none": switch_dr(0.0), "dros all": dros(inf),
        "dros none": dros(0.0),
    }  # fmt: skip
    found = evaluate(pi, log, forms)
    for a, b in (("ips", "clipped"), ("ips", "sg"), ("ips", "es"), ("dr", "switch all"),
                 ("dr", "dros all"), ("dm", "switch none"), ("dm", "dros none")):  # fmt: skip
        assert found[a].value == pytest.approx(found[b].value, rel=1e-12)
        assert found[a].error == pytest.approx(found[b].error, rel=1e-9)


def test_a_given_hyperparameter_is_not_chosen():
    assert candidates(dros(7.0).score) == (dros(7.0).score,)
    assert len(candidates(dros().score)) == len(candidates(switch_dr().score)) == 9


def test_self_normalization_helps_when_rewards_are_shifted():
    """Rewards around 100: IPS pays for the spread of the weights, SNIPS and SNDR do not."""
    log, pi = logged(2000)
    log.reward = log.reward + 100.0
    found = evaluate(pi, log, {"ips": ips(), "snips": snips(), "sndr": sndr()})
    assert found["snips"].error < 0.1 * found["ips"].error
    assert found["sndr"].error < 0.1 * found["ips"].error


def test_mrdr_has_less_variance_than_dr_where_one_model_cannot_fit_all():
    """Rewards of the action that the target takes are wild in one corner of few logged rows; MRDR
    spends its fit where the ratio is large."""
    g = torch.Generator().manual_seed(0)
    n = 20_000
    x = torch.rand(n, 1, generator=g, dtype=torch.float64) * 2 - 1
    share = torch.where(x[:, 0] > 0.6, 0.03, 0.9).double()
    mu = torch.stack((share, 1 - share), 1)
    action = torch.multinomial(mu, 1, generator=g)
    mean = torch.where(x[:, 0] > 0.6, 5 * x[:, 0], torch.zeros(n, dtype=torch.float64))
    reward = mean + 0.1 * torch.randn(n, generator=g, dtype=torch.float64)
    log = Decisions(
        context=x, action=action[:, 0], reward=reward, propensity=mu.gather(1, action)[:, 0],
        propensities=mu, batch_size=[n],
    )  # fmt: skip
    target = torch.tensor([1.0, 0.0])
    found = evaluate(target, log, {"dr": dr(), "mrdr": mrdr()})
    assert found["mrdr"].error < 0.8 * found["dr"].error
    truth = mean.mean().item()
    assert abs(found["mrdr"].value - truth) < 4 * found["mrdr"].error
