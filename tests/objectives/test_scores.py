"""Scores against full enumeration, special cases and known influence functions."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.scores import (
    capped_by_power,
    clipped,
    explored,
    importance,
    linearized,
    lower,
    modeled,
    mrdr_weight,
    no_weight,
    nothing,
    paired,
    self_normalized,
    shrunk,
    subgaussian,
    switched,
    tuned,
    weighted,
)
from surpass.objectives.selection import slope
from surpass.objectives.views import Query
from surpass.parts import from_json, part, to_json

X, A = 2, 3


def enumerated(seed: int) -> tuple[Query, Tensor, float, float]:
    """Every (context, action, reward in {0, 1}) of a small world as one row, the probability of
    each row, and the true values of target and logging policy."""
    g = torch.Generator().manual_seed(seed)

    def simplex(*shape: int) -> Tensor:
        return torch.softmax(torch.randn(*shape, generator=g, dtype=torch.float64), -1)

    p_x, mu, pi, q = simplex(X), simplex(X, A), simplex(X, A), torch.rand(
        X, A, generator=g, dtype=torch.float64)  # fmt: skip
    model = torch.randn(X, A, generator=g, dtype=torch.float64)
    x, a, r = torch.meshgrid(torch.arange(X), torch.arange(A), torch.arange(2), indexing="ij")
    x, a, r = x.flatten(), a.flatten(), r.flatten().double()
    paid = torch.where(r == 1, q[x, a], 1 - q[x, a])
    query = Query(
        action=a, reward=r, propensity=mu[x, a], target=pi[x], q=model[x], reference=mu[x],
        propensities=mu[x],
    )  # fmt: skip
    true = [(p_x[:, None] * policy * q).sum().item() for policy in (pi, mu)]
    return query, p_x[x] * mu[x, a] * paid, true[0], true[1]


def random_query(n: int = 400, actions: int = 4, seed: int = 0) -> Query:
    g = torch.Generator().manual_seed(seed)

    def simplex() -> Tensor:
        return torch.softmax(torch.randn(n, actions, generator=g, dtype=torch.float64), -1)

    mu, pi = simplex(), simplex()
    action = torch.multinomial(mu, 1, generator=g)
    return Query(
        action=action[:, 0],
        reward=torch.randn(n, generator=g, dtype=torch.float64),
        propensity=mu.gather(1, action)[:, 0],
        target=pi,
        q=torch.randn(n, actions, generator=g, dtype=torch.float64),
        reference=mu,
        propensities=mu,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_ips_and_dr_have_no_bias_whatever_the_model(seed):
    query, probability, truth, logged = enumerated(seed)
    for score in (weighted(), weighted(importance(), modeled())):
        assert (probability @ score(query)).item() == pytest.approx(truth, abs=1e-12)
        assert (probability @ paired(score)(query)).item() == pytest.approx(
            truth - logged, abs=1e-12
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 3.0))
def test_clipping_has_exactly_its_stated_bias(seed, tau):
    query, probability, truth, _ = enumerated(seed)
    missing = probability @ ((query.ratio - tau).clamp(min=0) * query.reward)
    found = probability @ weighted(clipped(tau))(query)
    assert found.item() == pytest.approx(truth - missing.item(), abs=1e-12)


def test_a_right_model_makes_every_weight_unbiased():
    """With q the true mean reward, v + w (r - q) has the right mean for any w."""
    query, probability, truth, _ = enumerated(3)
    mass = torch.zeros(X, A, dtype=torch.float64)
    paid = torch.zeros(X, A, dtype=torch.float64)
    x = torch.arange(X).repeat_interleave(2 * A)
    mass.index_put_((x, query.action), probability, accumulate=True)
    paid.index_put_((x, query.action), probability * query.reward, accumulate=True)
    right = replace(query, q=(paid / mass)[x])
    for weight in (no_weight(), clipped(0.7), switched(1.0), shrunk(2.0), subgaussian(0.3)):
        found = probability @ weighted(weight, modeled())(right)
        assert found.item() == pytest.approx(truth, abs=1e-12)


def test_special_cases_coincide():
    query = random_query()
    ips, dr = weighted()(query), weighted(importance(), modeled())(query)
    dm = weighted(no_weight(), modeled())(query)

    def same(score, other):
        torch.testing.assert_close(score(query), other, rtol=1e-12, atol=1e-12)

    same(weighted(clipped(1e9)), ips)
    same(weighted(subgaussian(0.0)), ips)
    same(weighted(capped_by_power(1.0)), ips)
    same(weighted(explored(0.0)), ips)
    same(weighted(switched(inf), modeled()), dr)
    same(weighted(switched(0.0), modeled()), dm)
    same(weighted(shrunk(inf), modeled()), dr)
    same(weighted(shrunk(0.0), modeled()), dm)
    torch.testing.assert_close(weighted(shrunk(1e14), modeled())(query), dr, rtol=1e-9, atol=1e-9)
    zero = replace(query, q=torch.zeros_like(query.q))
    torch.testing.assert_close(weighted(importance(), modeled())(zero), ips)
    # on policy every ratio is 1, so IPS is the reward and the gain is nothing
    on = replace(query, target=query.reference)
    torch.testing.assert_close(weighted()(on), query.reward)
    assert paired(weighted(importance(), modeled()))(on).abs().max().item() == 0.0
    deterministic = replace(query, target=torch.nn.functional.one_hot(query.action, 4).double())
    p = query.propensity
    torch.testing.assert_close(mrdr_weight()(deterministic), (1 - p) / p**2)


def test_weights_stay_within_their_bounds():
    query = random_query(2000)
    assert weighted(subgaussian(0.2)).hyper["weight"](query).max() <= 1 / 0.2
    assert explored(0.1)(query).max() <= 1 / 0.1
    assert shrunk(9.0)(query).max() <= 9**0.5 / 2 + 1e-12  # at w = sqrt(lam)
    assert switched(2.0)(query).max() <= 2.0


def test_snips_moves_with_the_reward_and_ips_does_not():
    query = random_query(40)
    moved = replace(query, reward=query.reward + 7.0)
    snips = self_normalized()
    assert (snips(moved).mean() - snips(query).mean()).item() == pytest.approx(7.0)
    off = query.ratio.mean().item()
    assert (weighted()(moved).mean() - weighted()(query).mean()).item() == pytest.approx(7 * off)
    assert abs(off - 1) > 0.01


@part
def ratio_value(query: Query, /) -> Tensor:
    w = query.weights * query.ratio
    return (w * query.reward).sum() / w.sum()


@part
def mean_value(query: Query, /) -> Tensor:
    return (query.weights * query.ratio * query.reward).mean()


@part
def unit_value(query: Query, /) -> Tensor:
    totals = torch.zeros_like(query.weights).index_add(0, query.extras["episode"], query.reward)
    return (query.weights * totals).sum() / query.weights.sum()


@part
def blind_value(query: Query, /) -> Tensor:
    return query.reward.mean()


def test_linearized_gives_known_influence_functions():
    query = random_query()
    w, r = query.ratio, query.reward
    value = (w @ r) / w.sum()
    known = value + w * (r - value) / w.mean()
    torch.testing.assert_close(linearized(ratio_value())(query), known)
    torch.testing.assert_close(self_normalized()(query), known)
    torch.testing.assert_close(linearized(mean_value())(query), w * r)
    episodes = replace(query, extras={"episode": torch.arange(400) // 8})
    totals = query.reward.view(50, 8).sum(1)
    torch.testing.assert_close(linearized(unit_value(), "episode")(episodes), totals)
    with pytest.raises(InputError, match=r"query\.weights"):
        linearized(blind_value())(query)


def test_lowered_terms_give_the_mean_of_the_scores():
    query = random_query()
    dr, sndr = weighted(importance(), modeled()), self_normalized(importance(), modeled())
    for score in (dr, sndr, sndr + 0.5 * dr, 2.0 * sndr, dr + weighted(), -1.0 * weighted()):
        taken = lower(score)
        means = [term(query).mean(0) for term in taken.terms]
        assert taken.of(*means).item() == pytest.approx(score(query).mean().item(), abs=1e-12)
        assert taken.plain == ("smooth" not in repr(score))
    with pytest.raises(InputError, match="whole log"):
        lower(linearized(ratio_value()))


def test_gain_over_the_logs_where_only_the_logged_propensity_is_known():
    query = replace(random_query(), reference=None, propensities=None)
    torch.testing.assert_close(paired(weighted())(query), query.ratio * query.reward - query.reward)


def test_scores_are_values_that_survive_json():
    score = self_normalized(shrunk(3.0), modeled())
    assert from_json(to_json(score)) == score
    chosen = tuned((weighted(), weighted(clipped(2.0), nothing())))
    assert from_json(to_json(chosen)) == chosen


def test_slope_stops_where_intervals_part():
    def alone(*errors: float) -> Tensor:
        return torch.diag(torch.tensor(errors) ** 2)

    value = torch.tensor([1.0, 1.1, 1.2, 3.0, 1.0])
    apart = alone(1.0, 0.3, 0.1, 0.1, 0.1)
    # 3.0 is beyond 1.2 + 2 (0.1 + 0.1); what follows is not looked at
    assert slope(value, apart, "slope") == slope(value, apart) == 2
    assert slope(torch.zeros(4), alone(4.0, 3.0, 2.0, 1.0)) == 3
    # 2 s_i + 2 s_j = 2.2, s_i + (sqrt 6 - 1) s_j = 1.549, sqrt(s_i^2 + s_j^2) = 1.005
    for gap, first in ((2.1, ["slope"]), (1.5, ["slope", "slope++"]),
                       (1.0, ["slope", "slope++", "paired"])):  # fmt: skip
        far = torch.tensor([0.0, gap])
        meets = [r for r in ("slope", "slope++", "paired") if slope(far, alone(1.0, 0.1), r)]
        assert meets == first
    # estimates that err together: a difference of 0.3 is no accident
    together = torch.tensor([[1.0, 0.98], [0.98, 1.0]])  # the difference has error 0.2
    assert slope(torch.tensor([0.0, 0.3]), together) == 0
    assert slope(torch.tensor([0.0, 0.1]), together) == 1
    with pytest.raises(InputError, match=r"slope\+\+"):
        slope(value, apart, "slop++")


def test_tuned_keeps_the_tail_when_there_is_data_and_cuts_it_when_there_is_not():
    """A rare action that pays: clipping at 2 is badly biased, which only many rows can show."""

    def log(n: int) -> Query:
        g = torch.Generator().manual_seed(1)
        mu = torch.tensor([0.98, 0.02], dtype=torch.float64).expand(n, -1)
        action = torch.multinomial(mu, 1, generator=g)[:, 0]
        reward = action.double() + 0.1 * torch.randn(n, generator=g, dtype=torch.float64)
        return Query(
            action=action, reward=reward, propensity=mu.gather(1, action[:, None])[:, 0],
            target=torch.tensor([0.5, 0.5], dtype=torch.float64).expand(n, -1),
        )  # fmt: skip

    grid = tuple(weighted(clipped(tau)) for tau in (inf, 10.0, 2.0))
    many, few = log(100_000), log(60)
    torch.testing.assert_close(tuned(grid)(many), grid[0](many))
    torch.testing.assert_close(tuned(grid)(few), grid[2](few))
