"""Learners on decision logs: against known optima, and against one another where they coincide."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from surpass.errors import InputError
from surpass.improve.nominate import ClosedFormTilts
from surpass.improve.scoring import Rows
from surpass.methods.decisions import LEARNERS, learners
from surpass.methods.decisions.ascent import learning_query
from surpass.methods.decisions.seeking import LogisticRewards
from surpass.methods.decisions.threads import threads_for
from surpass.objectives.scores import modeled, weighted
from surpass.policies.tilted import fit_multinomial

A, D = 4, 3


def world(n: int, seed: int, curved: bool = False) -> tuple[Rows, Tensor]:
    """A log with known rates [n, A]: linear in the context, or turning with the sign of a
    product."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    slope = torch.tensor([[1.2, -1.0, 0.2, -0.4], [0.3, 0.4, -1.1, 0.4], [0.0, 0.5, 0.5, -1.0]])
    if curved:
        turn = (x[:, 0] * x[:, 1]).sign()[:, None]
        rate = 0.5 + 0.3 * turn * torch.tensor([1.0, -1.0, 0.0, 0.0])
    else:
        rate = torch.sigmoid(x @ slope.double())
    mu = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).expand(n, -1)
    action = torch.multinomial(mu, 1, generator=g)[:, 0]
    reward = torch.bernoulli(rate.gather(1, action[:, None])[:, 0], generator=g)
    p = mu.gather(1, action[:, None])[:, 0]
    return Rows(x, action, reward.double(), p, A, 0.0, 1.0, mu, mu), rate


def best_share(name: str, curved: bool, n: int = 4000, **options) -> float:
    """The true gain of a learner's best candidate as a share of what is possible (greedy on the
    truth)."""
    train, _ = world(n, 1, curved)
    test, rate = world(6000, 2, curved)
    assert test.reference is not None
    possible = (rate.amax(1) - (test.reference * rate).sum(1)).mean()
    gains = [
        ((c.policy(test.context, test.offered) - test.reference) * rate).sum(1).mean() / possible
        for c in LEARNERS[name](**options).fit(train, None, 0)
    ]
    return float(max(gains))


@pytest.mark.parametrize(
    ("name", "share"),
    [("ridge", 0.93), ("logistic", 0.93), ("boosting", 0.75), ("ips", 0.7), ("poem", 0.75),
     ("snips", 0.85), ("dr", 0.85), ("provable", 0.8), ("dr-mlp", 0.8), ("snips-mlp", 0.75),
     ("provable-mlp", 0.75)],
)  # fmt: skip
def test_reaches_its_share_of_the_optimum_where_effects_are_linear(name, share):
    assert best_share(name, curved=False) >= share


def test_trees_and_networks_learn_what_linear_policies_cannot():
    assert best_share("dr", curved=True) < 0.3
    assert best_share("boosting", curved=True) > 0.8
    assert best_share("dr-mlp", curved=True, n=8000, passes=30) > 0.6


def test_ridge_is_the_closed_form_tilt_of_the_same_penalty():
    rows, _ = world(800, 3)
    ours = {c.label.sharpness: c.policy for c in LEARNERS["ridge"]().fit(rows, None, 0)}
    theirs = ClosedFormTilts(penalties=((300.0, 300.0),), strengths=(1.0, 4.0)).fit(rows, None, 0)
    for candidate in theirs:
        torch.testing.assert_close(
            ours[candidate.label.sharpness](rows.context, rows.offered),
            candidate.policy(rows.context, rows.offered),
        )


def test_logistic_maximizes_its_penalized_likelihood():
    rows, _ = world(600, 4)
    # one action only: the deviation is absorbed in v as its penalty grows, which is plain ridge
    # logistic regression on standardized columns
    one = replace(rows, action=torch.zeros_like(rows.action), n_actions=1)
    alone = LogisticRewards(intercept=1e4, slopes=1e4, shared=4.0).fit(one)
    z = (rows.context - rows.context.mean(0)) / rows.context.std(0, unbiased=False)
    plain = LogisticRegression(C=1 / 4.0, tol=1e-10).fit(z.numpy(), rows.reward.numpy())
    expected = torch.from_numpy(plain.predict_proba(z.numpy())[:, 1])
    torch.testing.assert_close(alone(rows.context)[:, 0], expected, atol=1e-4, rtol=0)


def test_no_candidate_leaves_the_support_or_the_cap():
    rows, _ = world(500, 5)
    mu = torch.tensor([0.01, 0.0, 0.495, 0.495], dtype=torch.float64).expand(500, -1)
    action = torch.where(rows.action == 1, 2, rows.action)
    p = mu.gather(1, action[:, None])[:, 0]
    rows = replace(
        rows, action=action, propensity=p, reference=mu, behavior=mu, cost=(action == 3).double()
    )
    for name in LEARNERS:
        for candidate in LEARNERS[name]().fit(rows, None, 0):
            pi = candidate.policy(rows.context, rows.offered)
            torch.testing.assert_close(pi.sum(1), torch.ones(500, dtype=torch.float64))
            assert bool((pi <= 21 * mu + 1e-12).all()), name


def test_logged_propensities_alone_suffice():
    rows, _ = world(3000, 6)
    fitted = fit_multinomial(rows.context, rows.action, A)
    alone = replace(rows, reference=None, behavior=None)
    test, rate = world(4000, 7)
    assert test.reference is not None
    for name in ("logistic", "dr", "provable"):
        candidate = LEARNERS[name]().fit(alone, fitted, 0)[-1]
        pi = candidate.policy(test.context, None)
        gain = ((pi - test.reference) * rate).sum(1).mean()
        assert gain / (rate.amax(1) - (test.reference * rate).sum(1)).mean() > 0.7


def test_same_seed_same_policy_and_the_global_generator_is_left_alone():
    rows, _ = world(400, 8)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, two = (LEARNERS["dr-mlp"](passes=2).fit(rows, None, 5)[0].policy for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(rows.context, rows.offered), two(rows.context, rows.offered))


def test_reward_model_for_learning_has_not_seen_its_row():
    rows, _ = world(60, 9)
    noise = torch.rand(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = learning_query(replace(rows, reward=noise), None, seed=0)
    changed = noise.clone()
    changed[7] += 100.0
    other = learning_query(replace(rows, reward=changed), None, seed=0)
    assert torch.equal(base.q[7], other.q[7])
    assert int((base.q != other.q).any(1).sum()) == 30  # the other half saw it


def test_policy_gradient_finds_the_maximum_of_its_objective():
    """With one context, the maximizer over softmax policies is known: all on the best estimate."""
    n = 3000
    rows, _ = world(n, 10)
    rows = replace(rows, context=torch.ones(n, D, dtype=torch.float64))
    query = learning_query(rows, None)
    estimate = torch.stack([
        weighted(baseline=modeled())(query_with(query, a)).mean() for a in range(A)
    ])  # fmt: skip
    sharpest = LEARNERS["dr"](penalty=0.0).fit(rows, None, 0)[-1]
    pi = sharpest.policy(rows.context[:1], rows.offered[:1])[0]
    assert int(pi.argmax()) == int(estimate.argmax())
    assert float(pi.max()) > 0.9


def query_with(query, action: int):
    target = torch.zeros_like(query.reference)
    target[:, action] = 1.0
    return replace(query, target=target)


def test_unknown_learner_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'logistic'"):
        learners("logisitc")
    assert [x.name for x in learners(["ridge", "auto", "ridge"])].count("ridge") == 1


def test_small_fits_use_one_thread_and_give_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(1_000):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with threads_for(10**9):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
