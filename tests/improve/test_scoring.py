import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surpass.data.records import Decisions
from surpass.errors import InputError
from surpass.improve.scoring import Rows, control_variate, joined, reward_range, score
from surpass.policies.tilted import tilted


def _t(x):
    return torch.as_tensor(np.asarray(x, dtype=np.float64))


def _rows(seed, n=40, actions=5, zeros=True, lo=-1.0, hi=2.0):
    rng = np.random.default_rng(seed)
    mu = rng.dirichlet(np.full(actions, 0.4), n)
    if zeros:
        mu[rng.random((n, actions)) < 0.2] = 0.0
    mu[:, 0] += 1e-3
    mu /= mu.sum(1, keepdims=True)
    action = np.array([rng.choice(actions, p=p) for p in mu])
    reward = rng.choice([lo, hi, 0.3], n)
    table = _t(mu)
    return rng, Rows(
        _t(np.zeros((n, 1))), torch.from_numpy(action), _t(reward),
        _t(mu[np.arange(n), action]), actions, lo, hi, table, table,
    )  # fmt: skip


@given(st.integers(0, 100_000), st.sampled_from([0.5, 3.0, 1000.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_score_passes_its_computed_limits(seed, strength, only_logged):
    rng, rows = _rows(seed)
    rho = rows.reference
    pi = tilted(rho, _t(rng.normal(size=rho.shape)), strength)
    q = _t(rng.normal(0, 2, rho.shape))
    if only_logged:
        surrogate = _t(rng.dirichlet(np.ones(5), 40))
        rows = Rows(**{**rows.__dict__, "reference": None, "behavior": None})
        found = score(rows, pi, q, surrogate)
    else:
        found = score(rows, pi, q)
    assert float(found.phi.min()) >= float(found.lower) - 1e-9
    assert float(found.phi_high.max()) <= float(found.upper) + 1e-9


@given(st.integers(0, 100_000))
@settings(max_examples=30, deadline=None)
def test_the_limits_are_those_of_enumeration(seed):
    rng, rows = _rows(seed, n=6, actions=3)
    rho = rows.reference
    pi = tilted(rho, _t(rng.normal(size=rho.shape)), 2.0)
    q = _t(rng.normal(0, 2, rho.shape))
    reached = []
    for i, a, r in itertools.product(range(6), range(3), (rows.lo, rows.hi)):
        if rho[i, a] > 0:
            f = control_variate(pi[i] / rho[i].clamp_min(1e-300) - 1, q[i], rows.lo, rows.hi)
            base = float(((pi[i] - rho[i]) * f).sum())
            reached.append(base + float(pi[i, a] / rho[i, a] - 1) * (r - float(f[a])))
    found = score(rows, pi, q)
    assert float(found.lower) == pytest.approx(min(reached), abs=1e-9)
    assert float(found.upper) == pytest.approx(max(reached), abs=1e-9)


@pytest.mark.parametrize("mode", ["known", "other reference", "logged only"])
def test_the_score_is_unbiased_whatever_the_model_says(mode):
    """Full enumeration: two contexts, three actions, two rewards."""
    mu = _t([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    other = _t([[0.2, 0.2, 0.6], [0.4, 0.3, 0.3]])
    pi = _t([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    means = np.array([[0.2, 0.5, 0.9], [0.3, 0.4, 0.1]])
    q = _t([[0.9, 0.1, 0.4], [0.0, 1.5, -2.0]])
    cells = list(itertools.product(range(2), range(3), (0.0, 1.0)))
    x, a, r = (np.array(c) for c in zip(*cells, strict=True))
    chance = 0.5 * mu.numpy()[x, a] * np.where(r == 1, means[x, a], 1 - means[x, a])
    rho = {"known": mu, "other reference": other, "logged only": mu}[mode]
    table = None if mode == "logged only" else mu[x]
    rows = Rows(
        _t(x)[:, None], torch.from_numpy(a), _t(r), mu[x, a], 3, 0.0, 1.0,
        None if table is None else table if mode == "known" else rho[x], table,
    )  # fmt: skip
    phi = score(rows, pi[x], q[x], surrogate=other[x]).phi.numpy()
    gain = (0.5 * (pi - rho).numpy() * means).sum()
    assert chance @ phi == pytest.approx(gain, abs=1e-12)


@given(st.integers(0, 100_000), st.floats(0.05, 1.0))
@settings(max_examples=25, deadline=None)
def test_a_blend_scores_its_share_where_the_control_variate_is_free(seed, share):
    """phi of rho + b (pi - rho) is b phi, so blends are neither easier nor harder to prove."""
    rng, rows = _rows(seed)
    rho = rows.reference
    pi = tilted(rho, _t(rng.normal(size=rho.shape)), 1.0)
    q = torch.full_like(rho, rows.lo)  # f = lo whatever the ratio
    whole, part = score(rows, pi, q), score(rows, rho + share * (pi - rho), q)
    torch.testing.assert_close(part.phi, share * whole.phi)
    torch.testing.assert_close(part.lower, share * whole.lower)


def test_one_row_loses_at_most_about_twice_the_range():
    rho = _t([[0.01, 0.99]])
    pi = _t([[0.208, 0.792]])
    rows = Rows(_t([[0.0]]), torch.tensor([0]), _t([0.0]), _t([0.01]), 2, 0.0, 1.0, rho, rho)
    bounded = score(rows, pi, _t([[1.0, 1.0]]))
    assert float(bounded.lower) > -2.0 - 0.2  # w - 1 is 19.8; an unbounded f would lose 19.8


def test_mass_without_support_counts_as_the_worst_for_low_and_the_best_for_high():
    mu, rho = _t([[1.0, 0.0]] * 4), _t([[1.0, 0.0]] * 4)
    rows = Rows(
        _t(np.zeros((4, 1))), torch.zeros(4, dtype=torch.long), _t([0, 1, 1, 0]), _t(np.ones(4)),
        2, 0.0, 1.0, rho, mu,
    )  # fmt: skip
    pi = _t([[0.6, 0.4]] * 4)
    found = score(rows, pi, _t([[0.5, 0.9]] * 4))
    assert float(found.phi.mean()) == pytest.approx(0.6 * 0.5 + 0.4 * 0.0 - 0.5)
    assert float(found.phi_high.mean()) == pytest.approx(0.6 * 0.5 + 0.4 * 1.0 - 0.5)
    torch.testing.assert_close(found.unsupported, torch.full((4,), 0.4, dtype=torch.float64))


def test_scores_of_several_candidates_at_once_are_those_of_each():
    rng, rows = _rows(7)
    rho = rows.reference
    pi = torch.stack([tilted(rho, _t(rng.normal(size=rho.shape)), c) for c in (1.0, 5.0)])
    q = _t(rng.normal(size=(2, *rho.shape)))
    both = score(rows, pi, q)
    for k in range(2):
        one = score(rows, pi[k], q[k])
        torch.testing.assert_close(both.phi[k], one.phi)
        torch.testing.assert_close(both.lower[k], one.lower)
        torch.testing.assert_close(both.weight[k], one.weight)


def test_the_range_is_stated_two_valued_or_observed():
    two = reward_range(_t([0, 1, 1, 0]))
    assert (two.lo, two.hi, two.source) == (0.0, 1.0, "two-valued")
    assert "no value other than 0 and 1" in two.assumption
    many = reward_range(_t([0, 1, 100]))
    assert (many.lo, many.hi, many.source) == (0.0, 100.0, "observed")
    assert reward_range(_t([0, 1, 3]), (0, 5)).source == "stated"
    with pytest.raises(InputError, match="row 3 lies outside"):
        reward_range(_t([0, 1, 7]), (0, 5))
    with pytest.raises(InputError, match="empty"):
        reward_range(_t([0, 1]), (1, 1))
    with pytest.raises(InputError, match="has no end"):
        reward_range(_t([0, 1]), (0, np.inf))
    with pytest.raises(InputError, match="every row"):
        reward_range(_t([1, 1]))


def test_rows_of_a_log_share_one_table_when_the_reference_logged():
    log = Decisions(
        context=torch.zeros(3, 2), action=torch.tensor([0, 1, 0]), reward=torch.ones(3),
        propensity=torch.full((3,), 0.5), propensities=torch.full((3, 2), 0.5), batch_size=[3],
    )  # fmt: skip
    rows = Rows.of(log, 0.0, 1.0)
    assert rows.reference is rows.behavior
    assert rows.take(torch.tensor([0, 2])).reference is not rows.reference
    picked = rows.take(torch.tensor([1]))
    assert picked.reference is picked.behavior
    given_reference = Rows.of(log, 0.0, 1.0, torch.tensor([[1.0, 0.0]] * 3))
    assert float(given_reference.reference[0, 0]) == 1.0
    assert float(given_reference.behavior[0, 0]) == 0.5


def test_a_propensity_of_fewer_digits_passes_no_limit():
    """The reference has 1/3 everywhere, the logged propensity 0.333. For the policy that always
    takes the third action the worst is that it pays 0 where f says 1: 2/3 less twice that 1."""
    log = Decisions(
        context=torch.zeros(3, 1), action=torch.arange(3), reward=torch.tensor([0.0, 1.0, 0.0]),
        propensity=torch.full((3,), 0.333).double(),
        propensities=torch.full((3, 3), 1 / 3).double(), batch_size=[3],
    )  # fmt: skip
    found = score(Rows.of(log, 0.0, 1.0), _t([[0.0, 0.0, 1.0]] * 3), _t([[0.0, 0.0, 1.0]] * 3))
    assert float(found.lower) == pytest.approx(2 / 3 - 2)
    assert float(found.phi.min()) >= float(found.lower) - 1e-12
    assert found.weight.tolist() == pytest.approx([0.0, 0.0, 3.0])


@pytest.mark.parametrize("without_support", [False, True])
def test_chunks_of_rows_are_scored_as_one(without_support):
    rng, rows = _rows(8, zeros=without_support)
    rho = rows.reference
    even = torch.full_like(rho, 0.2)
    pi = even if without_support else tilted(rho, _t(rng.normal(size=rho.shape)), 2.0)
    q = _t(rng.uniform(-1, 2, rho.shape))
    whole = score(rows, pi, q)
    cuts = (slice(0, 7), slice(7, 30), slice(30, None))
    parts = joined([score(rows.take(c), pi[c], q[c]) for c in cuts])
    for name in ("phi", "phi_high", "lower", "upper", "weight"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    if without_support:
        torch.testing.assert_close(parts.unsupported, whole.unsupported)
