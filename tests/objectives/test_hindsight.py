"""Codes in hindsight: losses by hand, and who moves in which step."""

import math

import pytest
import torch

from surpass.objectives.hindsight import (
    code_triplet,
    hindsight,
    segment_preference,
    triplet,
    unit_codes,
)
from surpass.objectives.rows import Rows


class Nets(dict):
    __getattr__ = dict.__getitem__


def summed(obs, action, mask):
    """An encoder: the masked sum of observations."""
    return (obs * mask[..., None]).sum(1)


def rows(weight=None):
    return Rows({
        "obs": torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 1.0], [9.0, 9.0]]]),
        "action": torch.tensor([[[1.0], [0.0]], [[0.5], [8.0]]]),
        "mask": torch.tensor([[1.0, 1.0], [1.0, 0.0]]), "age": torch.zeros(2, 2).long(),
        "pairs.chosen.obs": torch.tensor([[[0.0, 2.0]], [[1.0, 0.0]], [[0.0, 0.0]]]),
        "pairs.rejected.obs": torch.tensor([[[0.0, 0.5]], [[0.0, 5.0]], [[3.0, 0.0]]]),
        "pairs.chosen.action": torch.zeros(3, 1, 1), "pairs.rejected.action": torch.zeros(3, 1, 1),
        "pairs.chosen.mask": torch.ones(3, 1), "pairs.rejected.mask": torch.ones(3, 1),
        **({} if weight is None else {"pairs.pair_weight": torch.tensor(weight)}),
    })  # fmt: skip


def test_the_triplet_is_that_of_torch_and_has_a_slope_where_codes_coincide():
    torch.manual_seed(0)
    a, p, n = torch.randn(3, 50, 4)
    want = torch.nn.TripletMarginLoss(margin=1.0, p=2, reduction="none")(a, p, n)
    torch.testing.assert_close(triplet(a, p, n), want, rtol=1e-4, atol=1e-5)
    a.requires_grad_()
    triplet(a, a.detach(), n).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_the_best_code_by_hand():
    w = torch.zeros(2)
    nets = Nets(encoder=summed, best=lambda: w)
    # |z+| and |z-|: (2, 0.5), (1, 5), (0, 3); margin 1
    assert float(code_triplet()(nets, rows())) == pytest.approx(2.5 / 3, abs=1e-5)
    assert float(code_triplet()(nets, rows([3.0, 1.0, 0.0]))) == pytest.approx(7.5 / 4, abs=1e-5)
    w = torch.tensor([0.0, 1.0], requires_grad=True)
    nets = Nets(encoder=summed, best=lambda: w)
    # (1, 0.5), (sqrt 2, 4), (1, sqrt 10): the first alone is not far enough apart; its two codes
    # lie on either side of w, so that a step goes toward the preferred one twice
    loss = code_triplet()(nets, rows())
    loss.backward()
    assert loss.item() == pytest.approx(1.5 / 3, abs=1e-5)
    assert w.grad.tolist() == pytest.approx([0.0, -2 / 3], abs=1e-5)


def test_codes_are_held_at_length_one():
    nets = Nets(encoder=summed)
    own = ((5 - 1) ** 2 + 0) / 2  # the masked step does not count
    chosen, rejected = (1 + 0 + 1) / 3, (0.25 + 16 + 4) / 3
    assert float(unit_codes()(nets, rows())) == pytest.approx(own + chosen + rejected, abs=1e-4)


def test_a_segment_is_repeated_from_its_own_code():
    def pi(wanted, obs, action, age):
        assert wanted.shape == (2, 2, 2)
        return wanted.sum(-1, keepdim=True), None  # 7 at both steps of the first, 1 of the second

    found = hindsight()(Nets(encoder=summed, pi=pi), rows())
    assert found.tolist() == pytest.approx([(36 + 49) / 2, 0.25])


def test_preferred_segments_earn_more_under_the_reward_model():
    r = rows()
    r.columns["pairs.chosen.mask"] = torch.tensor([[1.0], [1.0], [0.0]])
    nets = Nets(reward=lambda obs, action: torch.stack([obs.sum(-1), 0 * obs.sum(-1)]))
    gaps = [2 - 0.5, 1 - 5.0, 0 - 3.0]
    want = sum(math.log1p(math.exp(-g)) for g in gaps) / 3 + math.log(2)
    assert float(segment_preference()(nets, r)) == pytest.approx(want, abs=1e-5)
