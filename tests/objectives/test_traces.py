"""Traces: by hand, their bounds on any ratios, the special cases that coincide, and contraction."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surpass.data.records import Sequences
from surpass.objectives.advantage import gae, with_columns
from surpass.objectives.rows import Rows
from surpass.objectives.traces import (
    contraction,
    recency_bounded,
    recursive_retrace,
    retrace,
    trace_sums,
    traced_gae,
    traces,
    truncated_is,
)

RULES = (retrace, truncated_is, recursive_retrace, recency_bounded)
ratios = st.lists(st.floats(0.0, 20.0), min_size=2, max_size=12)
lams = st.floats(0.0, 1.0)


def path(rule, ratio):
    """beta_{0,t} of one path, [T]."""
    return traces(rule, torch.tensor([ratio], dtype=torch.float64))[0, 0]


def test_traces_by_hand():
    # the ratio of the first action itself, 9, counts nowhere
    ratio = [9.0, 0.5, 4.0, 0.5]
    want = {
        retrace: [1, 0.45, 0.405, 0.18225],
        truncated_is: [1, 0.9 * 0.5, 0.81, 0.729],
        recursive_retrace: [1, 0.45, 0.9, 0.405],
        recency_bounded: [1, 0.5, 0.81, 0.405],
    }
    for rule, values in want.items():
        assert path(rule(0.9), ratio).tolist() == pytest.approx(values), rule.__name__


@settings(deadline=None, max_examples=60)
@given(ratios, lams)
def test_bounds_hold_on_every_path(ratio, lam):
    """Retrace <= RBIS <= lam^t, and all that satisfy beta_t <= rho_t beta_{t-1} stay below P_t."""
    low, high = path(retrace(lam), ratio), path(recency_bounded(lam), ratio)
    age = torch.arange(len(ratio)).double()
    product = torch.tensor([1.0, *ratio[1:]], dtype=torch.float64).cumprod(0)
    assert (low <= high + 1e-12).all() and (high <= lam**age + 1e-12).all()
    for rule in (retrace, recursive_retrace, recency_bounded):
        beta = path(rule(lam), ratio)
        grown = torch.tensor(ratio[1:], dtype=torch.float64) * beta[:-1]
        assert (beta[1:] <= grown * (1 + 1e-12) + 1e-12).all()
        assert (beta <= product * (1 + 1e-9) + 1e-12).all()
    assert (path(truncated_is(lam), ratio) <= product * (1 + 1e-9) + 1e-12).all()


@settings(deadline=None, max_examples=30)
@given(ratios)
def test_at_lam_one_it_is_recursive_retrace(ratio):
    assert torch.equal(path(recency_bounded(1.0), ratio), path(recursive_retrace(1.0), ratio))


def test_truncated_importance_sampling_breaks_the_condition():
    """After ratios 4 and 1/4 the product is 1 again, so the trace jumps above rho_t beta_{t-1}."""
    beta = path(truncated_is(1.0), [1.0, 4.0, 0.25])
    assert beta[2] > 0.25 * beta[1]


@pytest.mark.parametrize("rule", RULES)
def test_on_policy_every_trace_is_that_of_the_lambda_return(rule):
    assert path(rule(0.8), [1.0] * 6).tolist() == pytest.approx([0.8**t for t in range(6)])


@pytest.mark.parametrize("rule", RULES)
def test_sums_are_those_of_a_double_loop(rule):
    g = torch.Generator().manual_seed(0)
    delta, ratio = torch.randn(3, 6, generator=g), 2 * torch.rand(3, 6, generator=g)
    own = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1.0]])
    over = torch.zeros(3, 6)
    over[2, 2] = 1.0
    found = trace_sums(rule(0.9), delta, ratio, 0.95, own, over)
    for b in range(3):
        steps = [t for t in range(6) if own[b, t]]
        for start in steps:
            later = [t for t in steps if t >= start and not (b == 2 and start <= 2 < t)]
            beta = path(rule(0.9), [float(ratio[b, t]) for t in later])
            want = sum(0.95**k * beta[k] * delta[b, t] for k, t in enumerate(later))
            assert float(found[b, start]) == pytest.approx(float(want), abs=1e-5)
    assert (found[own == 0] == 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_on_policy_advantages_are_those_of_gae(rule):
    """The same rule as an advantage, on sequences with a tool's turn and an end inside."""
    g = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1.0], [1, 1, 1, 1, 1, 0]])
    ended = torch.zeros(2, 6, dtype=torch.bool)
    ended[1, 2] = True
    seq = Sequences(
        action=torch.zeros(2, 6, dtype=torch.long), mask=mask,
        reward=torch.randn(2, 6, generator=g), terminated=ended, batch_size=[2],
    )  # fmt: skip
    seq = with_columns(
        seq, value=torch.randn(2, 6, generator=g), log_ratio=torch.zeros(2, 6),
        next_value=torch.randn(2, 6, generator=g),
    )  # fmt: skip
    want, found = gae(0.97, 0.8)(seq), traced_gae(rule(0.8), 0.97)(seq)
    for name in ("advantage", "value_target"):
        torch.testing.assert_close(found[name], want[name])
    off = with_columns(seq, log_ratio=torch.full((2, 6), -5.0))
    short = gae(0.97, 0.0)(seq)["advantage"]  # traces are cut to nearly nothing
    torch.testing.assert_close(
        traced_gae(rule(0.8), 0.97)(off)["advantage"], short, atol=0.05, rtol=0
    )


# ------------------------------------------------------------------------------- contraction


def chain(right):
    P = torch.ones(1, 2, 1, dtype=torch.float64)
    return P, torch.tensor([[right, 1 - right]]).double(), torch.full((1, 2), 0.5).double()


def norm(rule, right, gamma=0.94):
    return float(contraction(rule, *chain(right), gamma).abs().sum(1).max())


def test_norms_of_two_actions():
    want = {(0.7, retrace): 0.853, (0.7, recency_bounded): 0.825, (0.9, retrace): 0.749,
            (0.9, truncated_is): 0.673, (0.9, recursive_retrace): 0.657,
            (0.9, recency_bounded): 0.643}  # fmt: skip
    for (lam, rule), value in want.items():
        assert norm(rule(lam), 0.6) == pytest.approx(value, abs=6e-4)
    for right in (0.6, 0.75, 0.9):
        for lam in (0.2, 0.5, 0.8, 0.95):
            assert norm(recency_bounded(lam), right) < norm(retrace(lam), right) < 1
    # the bound that all three share, and the rule that has none
    assert norm(recursive_retrace(1.0), 0.9) <= 1
    assert norm(truncated_is(1.0), 0.6) == pytest.approx(1.1399, abs=1e-3)
    assert norm(retrace(0.0), 0.6) == pytest.approx(0.94)


@pytest.mark.parametrize("rule", RULES)
def test_z_is_the_sum_over_all_paths(rule):
    """Brute force: every path of four steps in a problem of two states."""
    g = torch.Generator().manual_seed(3)
    P = torch.rand(2, 2, 2, generator=g, dtype=torch.float64)
    P = P / P.sum(-1, keepdim=True)
    pi, mu = (torch.softmax(torch.randn(2, 2, generator=g).double(), -1) for _ in range(2))
    gamma, terms, n = 0.8, 4, 4
    P_pi = torch.einsum("sat,tb->satb", P, pi).reshape(n, n)
    B = [torch.zeros(n, n, dtype=torch.float64) for _ in range(terms + 1)]
    pairs = list(itertools.product(range(2), range(2)))
    for x, t in itertools.product(range(n), range(terms + 1)):
        for walk in itertools.product(range(n), repeat=t):
            ratio, weight, here = [1.0], 1.0, pairs[x]
            for y in walk:
                s, a = pairs[y]
                weight *= float(P[here[0], here[1], s] * mu[s, a])
                ratio.append(float(pi[s, a] / mu[s, a]))
                here = pairs[y]
            B[t][x, walk[-1] if walk else x] += weight * path(rule(0.9), ratio)[t]
    want = sum(gamma**t * (B[t - 1] @ P_pi - B[t]) for t in range(1, terms + 1))
    found = contraction(rule(0.9), P, pi, mu, gamma, terms)
    torch.testing.assert_close(found, want)


def test_plain_importance_sampling_reaches_the_value_in_one_sweep():
    """With beta_t = rho_1 ... rho_t every term of Z vanishes."""
    g = torch.Generator().manual_seed(4)
    P = torch.rand(2, 2, 2, generator=g, dtype=torch.float64)
    P = P / P.sum(-1, keepdim=True)
    pi, mu = (torch.softmax(torch.randn(2, 2, generator=g).double(), -1) for _ in range(2))

    def product(p):
        return p.ratio * p.held, p.ratio * p.held

    assert contraction(product, P, pi, mu, 0.8, 6).abs().max() < 1e-12


def test_rows_of_another_view_are_refused():
    from surpass.errors import InputError
    from surpass.objectives.traces import traced

    rows = Rows({"obs": torch.zeros(2, 3), "action": torch.zeros(2, dtype=torch.long)})
    with pytest.raises(InputError, match="segments"):
        traced()({}, rows)
