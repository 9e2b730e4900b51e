"""The best of k: against all subsets, by hand, and as its special cases."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.objectives.advantage import leave_one_out
from surpass.objectives.order_statistics import best_at_k, max_at_k


def sequences(reward, group=None, length=3):
    n = len(reward)
    paid = torch.zeros(n, length)
    paid[:, -1] = torch.as_tensor(reward)
    return Sequences(
        action=torch.zeros(n, length, dtype=torch.long), mask=torch.ones(n, length), reward=paid,
        group=torch.zeros(n, dtype=torch.long) if group is None else torch.as_tensor(group),
        batch_size=[n],
    )  # fmt: skip


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=7), st.data())
def test_the_best_of_k_is_the_mean_over_all_subsets(reward, data):
    k = data.draw(st.integers(1, len(reward)))
    want = [max(c) for c in itertools.combinations(reward, k)]
    got = best_at_k(torch.tensor([reward], dtype=torch.float64), k)
    assert float(got) == pytest.approx(sum(want) / len(want), abs=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 1), (8, 3, 4), (8, 0, 2), (8, 7, 2), (16, 2, 8)])
def test_of_zeros_and_ones_it_is_pass_at_k(n, c, k):
    reward = torch.tensor([[1.0] * c + [0.0] * (n - c)])
    want = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert float(best_at_k(reward, k)) == pytest.approx(want, abs=1e-12)


def weights_over_subsets(reward, k):
    """n / C(n, k) x the sum over subsets of (max - max of the others), given to the maximum."""
    n = len(reward)
    out = [0.0] * n
    for subset in itertools.combinations(range(n), k):
        top = max(subset, key=lambda i: (reward[i], i))
        out[top] += reward[top] - max(reward[i] for i in subset if i != top)
    return [n * v / math.comb(n, k) for v in out]


@given(st.lists(st.integers(0, 4), min_size=3, max_size=7), st.data())
def test_weights_are_gains_of_the_best_over_the_second_best(reward, data):
    k = data.draw(st.integers(2, len(reward)))
    got = max_at_k(k)(sequences([float(r) for r in reward]))
    want = weights_over_subsets(reward, k)
    torch.testing.assert_close(got[:, 0], torch.tensor(want), rtol=1e-5, atol=1e-5)
    assert torch.equal(got[:, 0], got[:, -1])


def test_groups_are_apart_and_one_is_leave_one_out():
    seq = sequences([1.0, 0.0, 3.0, 2.0, 5.0, 5.0], group=[0, 1, 0, 1, 0, 1])
    got = max_at_k(2)(seq)[:, 0]
    for name in (0, 1):
        rows = [i for i in range(6) if i % 2 == name]
        alone = max_at_k(2)(sequences([float(seq.total[i]) for i in rows]))[:, 0]
        torch.testing.assert_close(got[rows], alone)
    assert torch.equal(max_at_k(1)(seq), leave_one_out()(seq))


def test_the_gradient_is_unbiased_for_the_best_of_k():
    reward = torch.tensor([0.0, 1.0, 0.3, 2.0], dtype=torch.float64)
    logits = torch.tensor([0.2, -0.1, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    p = logits.softmax(-1)
    value = sum(
        p[list(draw)].prod() * reward[list(draw)].max()
        for draw in itertools.product(range(4), repeat=2)
    )
    (want,) = torch.autograd.grad(value, logits)
    got = torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        for draw in itertools.product(range(4), repeat=3):  # all groups of n = 3
            weight = max_at_k(2)(sequences(reward[list(draw)].float()))[:, 0].double() / 3
            score = torch.nn.functional.one_hot(torch.tensor(draw), 4) - p
            got += p[list(draw)].prod() * (weight[:, None] * score).sum(0)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_too_few_answers_are_refused():
    with pytest.raises(InputError, match="best of 3 cannot be estimated from 2"):
        best_at_k(torch.zeros(1, 2), 3)
    with pytest.raises(InputError, match="groups of at least 4 answers, not 3"):
        max_at_k(4)(sequences([0.0, 1.0, 2.0]))
