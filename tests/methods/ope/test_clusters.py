"""OffCEM: its special cases, its unbiasedness under local correctness, and the two-step fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from surpass.critics.conjunct import ActionClusters, ConjunctEffects, ridge_by_cg
from surpass.data.records import About, Decisions
from surpass.errors import InputError
from surpass.evaluation.decisions import evaluate
from surpass.forms import Estimator
from surpass.methods.ope.clusters import off_cem
from surpass.objectives.clusters import cluster_importance
from surpass.objectives.scores import importance, modeled, weighted
from surpass.objectives.views import Query

X, A = 3, 6
G = torch.Generator().manual_seed(3)
MU = torch.softmax(torch.randn(X, A, generator=G, dtype=torch.float64), -1)
PI = torch.softmax(2 * torch.randn(X, A, generator=G, dtype=torch.float64), -1)
PAID = torch.randn(X, A, generator=G, dtype=torch.float64)
CLUSTER = torch.tensor([0, 0, 1, 1, 1, 2])


def enumerated(q: Tensor, cluster: Tensor = CLUSTER) -> tuple[Query, Tensor]:
    """Every context and action once, with its probability under uniform contexts and mu."""
    x = torch.arange(X).repeat_interleave(A)
    a = torch.arange(A).repeat(X)
    query = Query(
        action=a, reward=PAID[x, a], propensity=MU[x, a], target=PI[x], q=q[x],
        propensities=MU[x], extras={"cluster": cluster.expand(X * A, -1)},
    )  # fmt: skip
    return query, MU[x, a] / X


def test_unbiased_when_the_model_has_the_differences_inside_clusters():
    level = torch.randn(X, 3, generator=G, dtype=torch.float64)[:, CLUSTER]
    query, probability = enumerated(PAID + level)
    score = weighted(cluster_importance(), modeled())(query)
    truth = (PI * PAID).sum(-1).mean()
    assert torch.allclose((probability * score).sum(), truth, atol=1e-12)
    wrong = enumerated(torch.zeros_like(PAID))[0]
    assert abs(float((probability * weighted(cluster_importance())(wrong)).sum() - truth)) > 0.01


def test_one_cluster_an_action_is_doubly_robust_and_one_cluster_is_a_constant_off_dm():
    query, _ = enumerated(PAID + 1, torch.arange(A))
    assert torch.allclose(cluster_importance()(query), importance()(query))
    query, _ = enumerated(PAID + 1, torch.zeros(A, dtype=torch.int64))
    assert torch.allclose(cluster_importance()(query), torch.ones(X * A, dtype=torch.float64))
    score = weighted(cluster_importance(), modeled())(query)
    assert torch.allclose(score, query.direct - 1)


def test_pairs_recover_the_differences_whatever_the_cluster_effect():
    n, d = 4000, 2
    g = torch.Generator().manual_seed(0)
    users = torch.randn(40, d, generator=g, dtype=torch.float64)
    x = users[torch.randint(40, (n,), generator=g)]
    a = torch.randint(A, (n,), generator=g)
    h = x @ torch.randn(A, d, generator=g, dtype=torch.float64).T
    effect = 5 * torch.sin(7 * x.sum(1))[:, None] * torch.tensor([1.0, -1.0, 2.0])[CLUSTER]
    q = h + effect
    query = Query(a, q.gather(1, a[:, None])[:, 0], torch.ones(n), torch.ones(n, A), context=x)
    model = ConjunctEffects(ActionClusters(given=tuple(CLUSTER.tolist())), penalty=1e-6)
    found = model.learn(query)(query)
    for i, j in ((0, 1), (2, 3), (3, 4)):
        gap = (found[:, i] - found[:, j]) - (h[:, i] - h[:, j])
        assert float(gap.abs().max()) < 1e-3
    one_step = ConjunctEffects(model.clusters, penalty=1e-6, least=2.0).learn(query)(query)
    assert float(((one_step - h)[:, 2] - (one_step - h)[:, 3]).abs().max()) > 0.05


def test_conjugate_gradients_solve_the_ridge_equations():
    m = torch.randn(30, 5, generator=G, dtype=torch.float64)
    y = torch.randn(30, generator=G, dtype=torch.float64)
    exact = torch.linalg.solve(m.T @ m + 2.0 * torch.eye(5), m.T @ y)
    assert torch.allclose(ridge_by_cg(lambda b: m @ b, lambda v: m.T @ v, y, 2.0), exact, atol=1e-8)


def test_evaluate_takes_it_and_follows_the_action_features():
    n = 600
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=g, dtype=torch.float64)
    mu = torch.softmax(x @ torch.randn(2, A, generator=g, dtype=torch.float64), -1)
    a = torch.multinomial(mu, 1, generator=g)
    features = torch.nn.functional.one_hot(CLUSTER, 3).double()
    log = Decisions(
        context=x, action=a[:, 0], reward=x.sum(1) + CLUSTER[a[:, 0]],
        propensity=mu.gather(1, a)[:, 0], propensities=mu, batch_size=[n],
    ).described(About(action_features=features, actions=tuple("abcdef")))  # fmt: skip
    pi = torch.softmax(2 * x @ torch.randn(2, A, generator=g, dtype=torch.float64), -1)
    by_features = evaluate(pi, log, estimators={"c": off_cem(3)})["c"].value
    by_hand = evaluate(pi, log, estimators={"c": off_cem(tuple(CLUSTER.tolist()))})["c"].value
    assert by_features == pytest.approx(by_hand, abs=1e-12)
    truth = float((x.sum(1) + pi @ CLUSTER.double()).mean())
    assert by_hand == pytest.approx(truth, abs=0.1)


def test_says_what_is_missing():
    query = Query(torch.zeros(1, dtype=torch.int64), torch.ones(1), torch.ones(1), torch.ones(1, 2))
    with pytest.raises(InputError, match="propensities"):
        cluster_importance()(query)
    with pytest.raises(InputError, match="2 clusters given for 3"):
        ActionClusters(given=(0, 1)).assign(
            Query(torch.zeros(1), torch.ones(1), torch.ones(1), torch.ones(1, 3))
        )
    assert isinstance(off_cem(), Estimator)
