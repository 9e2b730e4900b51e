"""Certificates: their terms by hand, their special cases, and that the truth respects them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from surpass.methods.decisions import LEARNERS
from surpass.methods.decisions.certified import Certified
from surpass.objectives.pac_bayes import bernstein, catoni, clipped_risk, gaussian_kl, smoothed
from surpass.objectives.scores import capped_by_power, weighted
from surpass.objectives.views import Query
from surpass.policies.mixed_logit import MixedLogit

N, A = 400, 3
G = torch.Generator().manual_seed(0)
MU = torch.softmax(torch.randn(N, A, generator=G, dtype=torch.float64), -1)
PI = torch.softmax(torch.randn(N, A, generator=G, dtype=torch.float64), -1)
ACTION = torch.multinomial(MU, 1, generator=G)[:, 0]
REWARD = torch.bernoulli(torch.rand(N, generator=G, dtype=torch.float64), generator=G)


def query(kl: float = 2.0) -> Query:
    return Query(
        ACTION, REWARD, MU.gather(1, ACTION[:, None])[:, 0], PI, propensities=MU,
        extras={"kl": torch.tensor(kl, dtype=torch.float64)},
    )  # fmt: skip


def test_smoothed_bound_by_hand():
    q, lam, delta, alpha, kl = query(), 0.02, 0.05, 0.7, 2.0
    p, c = q.propensity, -REWARD
    risk = (q.logged_target / p**alpha * c).mean()
    bias = 1 - (MU ** (1 - alpha) * PI).sum(1).mean()
    v = (PI * MU ** (1 - 2 * alpha)).sum(1).mean() + (
        q.logged_target / p ** (2 * alpha) * c**2
    ).mean()
    hand = risk + math.sqrt((kl + math.log(4 * math.sqrt(N) / delta)) / (2 * N)) + bias
    hand += (kl + math.log(4 / delta)) / (N * lam) + lam / 2 * v
    assert smoothed(alpha, delta, lambdas=(lam,))(q) == pytest.approx(float(hand))


def test_bernstein_bound_by_hand_and_special_cases():
    q, lam, delta, tau, xi, kl = query(), 0.03, 0.05, 0.2, -0.5, 2.0
    m = MU.clamp_min(tau)
    bias, v = 1 - (MU * PI / m).sum(1).mean(), (MU * PI / m**2).sum(1).mean()
    u = lam * ((1 + xi) / tau - xi)
    hand = clipped_risk(q, tau, xi) - xi * bias
    hand = hand + math.sqrt((kl + math.log(4 * math.sqrt(N) / delta)) / (2 * N))
    hand = hand + (kl + math.log(2 / delta)) / (lam * N)
    hand = hand + lam * 0.25 * (math.exp(u) - 1 - u) / u**2 * v
    assert bernstein(tau, xi, delta, lambdas=(lam,))(q) == pytest.approx(float(hand))
    # no clipping: the control variate does not change the mean of weights that average to one
    free = clipped_risk(q, 1e-9, 0.0)
    assert free == pytest.approx(-float(weighted(capped_by_power(1.0))(q).mean()))


def test_catoni_bound_by_hand():
    q, lam, tau, delta, kl = query(), 0.5, 0.2, 0.05, 2.0
    inner = tau * lam * float(clipped_risk(q, tau)) + (kl + math.log(2 * math.sqrt(N) / delta)) / N
    hand = (1 - math.exp(-inner)) / (tau * math.expm1(lam))
    assert catoni(tau, delta, lambdas=(lam,))(q) == pytest.approx(hand)


@pytest.mark.parametrize("bound", [smoothed(0.8), smoothed(1.0), catoni(), bernstein()])
def test_bounds_grow_with_the_divergence_and_shrink_with_rows(bound):
    assert bound(query(5.0)) > bound(query(1.0))
    values = dict(bound.values)
    more = bound.definition.function(
        query(), **{**bound.definition.defaults, **values, "rows": 10**6}
    )
    assert more < bound(query())


def test_gaussian_divergence_against_torch():
    mean, prior = torch.randn(5, generator=G), torch.randn(5, generator=G)
    log_spread = torch.tensor(-0.3)
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(mean, log_spread.exp()), normal(prior, 1.0))
    assert torch.allclose(gaussian_kl(mean, prior, log_spread), exact.sum())


def test_mixed_logit_averages_rules_and_is_softmax_without_spread():
    policy = MixedLogit(2, A, draws=4000)
    policy.mean = torch.randn(3, A, generator=G, dtype=torch.float64)
    x = torch.randn(5, 2, generator=G, dtype=torch.float64)
    policy.log_spread = torch.tensor(-20.0, dtype=torch.float64)
    phi = torch.cat((torch.ones(5, 1, dtype=torch.float64), x), 1)
    assert torch.allclose(policy(x), torch.softmax(phi @ policy.mean, -1), atol=1e-6)
    policy.log_spread = torch.tensor(0.2, dtype=torch.float64)
    theta = policy.mean + math.exp(0.2) * torch.randn(
        20_000, 3, A, generator=G, dtype=torch.float64
    )
    drawn = torch.softmax(torch.einsum("nk,ska->sna", phi, theta), -1).mean(0)
    assert torch.allclose(policy(x), drawn, atol=0.03)


class Rows:
    """Logged decisions where action 1 pays."""

    n_actions, lo, hi = A, 0.0, 1.0

    def __init__(self, n: int) -> None:
        g = torch.Generator().manual_seed(1)
        self.context = torch.randn(n, 2, generator=g, dtype=torch.float64)
        self.reference = torch.full((n, A), 1 / A, dtype=torch.float64)
        self.offered = self.reference
        self.action = torch.randint(A, (n,), generator=g)
        self.reward = torch.bernoulli(0.1 + 0.6 * (self.action == 1).double(), generator=g)
        self.propensity = torch.full((n,), 1 / A, dtype=torch.float64)


@pytest.mark.parametrize("name", ["exp-smoothing", "pac-bayes-opl"])
def test_learners_find_the_action_that_pays(name):
    learner = LEARNERS[name]()
    assert isinstance(learner, Certified)
    rows = Rows(4000)
    (candidate,) = learner.fit(rows, None, 0)
    pi = candidate.policy(rows.context, rows.reference)
    assert float(pi[:, 1].mean()) > 0.65  # its rules are random, so never all of it


def test_a_certificate_with_few_rows_refuses_and_with_many_does_not():
    for n, deploy in ((100, False), (8000, True)):
        rows = Rows(n)
        q = Query(
            rows.action, rows.reward, rows.propensity, rows.reference,
            propensities=rows.reference, context=rows.context,
        )  # fmt: skip
        prior = torch.zeros(3, A, dtype=torch.float64)
        zero: Tensor = torch.zeros(2, dtype=torch.float64)
        policy, found = Certified("x", bernstein(), epochs=8).learn(q, prior, zero, zero + 1, 0)
        assert found.deploy == deploy
        value = float((policy(rows.context) * torch.tensor([0.1, 0.7, 0.1])).sum(1).mean())
        assert found.value < value
