"""Bounded ratios: the closed form against a linear program, its improvement, and the losses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from surpass.objectives.bounded import above_group_median, group_median, median_loss, to_band
from surpass.objectives.views import Steps
from surpass.training.rollouts import SequenceRows


def target(lean, low=0.3, high=0.3):
    """The ratio that `to_band` leads to: where the loss is 0."""
    steps = Steps(
        logp=torch.zeros_like(lean), mask=torch.ones_like(lean), advantage=torch.ones_like(lean),
        log_ratio=torch.zeros_like(lean), extras={"lean": lean},
    )  # fmt: skip
    away = to_band(low, high)(steps)  # |1 - r*|
    return torch.where(lean > 0, 1 + away, 1 - away)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0.05, 0.9))
def test_the_target_is_the_best_policy_within_the_band(seed, half, eps):
    """Uniform pi_old over an even number of actions: half above the median, half below."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=2 * half)
    old = np.full(2 * half, 0.5 / half)
    best = linprog(-q, A_eq=np.ones((1, 2 * half)), b_eq=[1.0],
                   bounds=[((1 - eps) * p, (1 + eps) * p) for p in old])  # fmt: skip
    lean = torch.tensor((q - np.median(q)) / 1e-9)
    new = old * target(lean, eps, eps).numpy()
    assert new.sum() == pytest.approx(1.0)
    assert new @ q == pytest.approx(-best.fun, abs=1e-7)
    improvement = eps * (old * np.abs(q - np.median(q))).sum()
    assert new @ q - old @ q == pytest.approx(improvement, abs=1e-9)


def test_past_the_target_the_gradient_turns_back():
    log_ratio = torch.tensor([[0.0, 0.3, 0.0, -0.5]], requires_grad=True)  # r = 1, 1.35, 1, 0.61
    steps = Steps(
        logp=log_ratio, mask=torch.ones(1, 4), log_ratio=log_ratio,
        advantage=torch.tensor([[2.0, 2.0, -1.0, -1.0]]),
        extras={"lean": torch.tensor([[50.0, 50.0, -50.0, -50.0]])},
    )  # fmt: skip
    to_band()(steps).sum().backward()
    r = log_ratio.detach().exp()[0]
    want = [-2.0 * r[0], 2.0 * r[1], 1.0 * r[2], -1.0 * r[3]]
    assert log_ratio.grad[0].tolist() == pytest.approx([float(w) for w in want], rel=1e-5)


def test_descent_on_the_loss_ends_at_the_bounds_of_the_band():
    """A softmax over four equally likely actions with Q = 0, 1, 2, 3, in expectation."""
    q = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.01)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 400)
        log_ratio = torch.log_softmax(logits, -1)[None] - np.log(0.25)
        steps = Steps(
            logp=log_ratio, mask=torch.ones(1, 4), log_ratio=log_ratio, advantage=q - 1.5,
            extras={"lean": (q - 1.5) / 1e-3},
        )  # fmt: skip
        optimizer.zero_grad()
        to_band()(steps).sum().backward()
        optimizer.step()
    found = torch.softmax(logits, -1).tolist()
    assert found == pytest.approx([0.7 / 4, 0.7 / 4, 1.3 / 4, 1.3 / 4], abs=2e-3)


class Constant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(()))

    def forward(self, seq):
        return self.level.expand_as(seq.mask)


def test_the_median_s_loss_is_least_where_half_lies_above():
    net = Constant()
    seq = SequenceRows({
        "mask": torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]]),
        "value_target": torch.tensor([[-30.0, 10.0, 20.0, 500.0, 1e6]]),
    })  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 0.3)
    for _ in range(120):
        optimizer.zero_grad()
        median_loss()({"median": net}, seq).backward()
        optimizer.step()
    # stationary where the sum of sigmoid(Q - u) is half the count: anywhere between the middle two
    assert 10.0 < float(net.level.detach()) < 20.0


def group(scores, numbers):
    seq = SequenceRows({
        "reward": torch.tensor(scores)[:, None], "mask": torch.ones(len(scores), 1),
        "group": torch.tensor(numbers),
    })  # fmt: skip
    return seq


def test_medians_of_groups():
    seq = group([3.0, 1.0, 2.0, 10.0, 5.0, 7.0, 1.0], [0, 0, 0, 1, 1, 1, 1])
    assert group_median(seq, seq.total).tolist() == [2.0] * 3 + [6.0] * 4
    columns = above_group_median(temperature=1e-4)(seq)
    assert torch.sigmoid(columns["lean"])[:, 0].tolist() == [1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.0]
    assert float(columns["advantage"][2]) == 0.0
    same = above_group_median()(group([1.0, 1.0], [0, 0]))
    assert same["advantage"].abs().max() == 0.0 and same["lean"].abs().max() == 0.0
