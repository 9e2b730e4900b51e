"""The unified estimator: each preset has the gradient of the loss that the papers write."""

import pytest
import torch

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.objectives.advantage import group_centered, imitating, success_gate
from surpass.objectives.ratio import per_decision, per_sequence
from surpass.objectives.reduce import of_source, sum_over, token_mean
from surpass.objectives.trust import clip, nll, ratio_loss, unclipped
from surpass.objectives.unified import anchored, certain, current, shaped, uncertain, unified
from surpass.objectives.views import Steps
from surpass.parts import part, run


def logits(seed=0):
    return torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed)).double()


def gradient(loss, ratio=None, advantage=None):
    """The gradient of the sum of a loss per decision with respect to logits."""
    z = logits().requires_grad_()
    action = torch.arange(20).reshape(4, 5) % 6
    logp = z.log_softmax(-1).gather(-1, action[..., None])[..., 0]
    anchor = (logits() + 0.4 * logits(1)).log_softmax(-1).gather(-1, action[..., None])[..., 0]
    mask = torch.ones(4, 5).double()
    mask[2, 3:] = 0
    a = logits(2)[..., 0] if advantage is None else advantage * torch.ones(4, 5).double()
    s = Steps(logp, mask, anchor_logp=anchor, advantage=a)
    s = s.filled(log_ratio=run(ratio or per_decision(), (s,))[0])
    (run(loss, (s,))[0] * mask).sum().backward()
    return z.grad


@part
def chord_by_hand(s, /):
    p = s.logp.exp()
    return -(p * (1 - p)).detach() * s.logp * s.advantage


@part
def luffy_by_hand(s, /):
    p = s.logp.exp()
    return -s.advantage * p / (p + 0.1)


@part
def weighted_by_hand(s, /):
    return -s.advantage * s.logp.exp()


PRESETS = {
    "supervised": (unified(denominator=current()), nll(), None, 1.0),
    "ppo": (unified(unclipped(0.1, 0.2), anchored()), clip(0.1, 0.2), None, None),
    "unclipped": (unified(denominator=anchored()), ratio_loss(), None, None),
    "gspo": (unified(unclipped(0.1, 0.2), anchored()), clip(0.1, 0.2), per_sequence(), 1.0),
    "luffy": (unified(denominator=shaped(0.1)), luffy_by_hand(), None, None),
    "chord": (unified(denominator=uncertain()), chord_by_hand(), None, None),
    "weighted": (unified(denominator=certain()), weighted_by_hand(), None, None),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_gradient_of_the_paper_s_loss(name):
    ours, theirs, ratio, advantage = PRESETS[name]
    want = gradient(theirs, ratio, advantage)
    assert want.abs().max() > 0.01
    torch.testing.assert_close(gradient(ours, ratio, advantage), want, rtol=1e-9, atol=1e-10)


def mixed(reward, source, group):
    n = len(reward)
    return Sequences(
        action=torch.zeros(n, 2, dtype=torch.long), mask=torch.ones(n, 2),
        reward=torch.stack([torch.zeros(n), torch.tensor(reward)], 1),
        source=torch.tensor(source), group=torch.tensor(group), batch_size=[n],
    )  # fmt: skip


def test_traces_stand_outside_the_group_s_baseline():
    seq = mixed([1.0, 0.0, 1.0, 1.0], [0, 0, 1, 0], [0, 0, 0, 0])
    got = imitating(group_centered(), 0.5)(seq)[:, 0]
    torch.testing.assert_close(got, torch.tensor([1 / 3, -2 / 3, 0.5, 1 / 3]))
    own = seq[torch.tensor([0, 1, 3])]
    assert torch.equal(imitating(group_centered())(own), group_centered()(own))


def test_the_gate_chooses_answers_or_the_trace_per_prompt():
    seq = mixed([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0, 0, 1, 0, 0, 1], [7, 7, 7, 9, 9, 9])
    assert success_gate(0.0)(seq).tolist() == [1, 1, 0, 0, 0, 1]
    assert success_gate(0.5)(seq).tolist() == [0, 0, 1, 0, 0, 1]  # half is not more than half
    assert success_gate(-1.0)(seq).tolist() == [1, 1, 0, 1, 1, 0]  # always reinforce


def test_each_source_is_averaged_over_its_own_share():
    loss = torch.tensor([[1.0, 3.0], [5.0, 9.0], [10.0, 20.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    s = Steps(loss, mask, loss=loss, source=torch.tensor([0, 0, 1]), sources=("own", "expert"))
    both = 0.25 * of_source("own") + 0.75 * of_source("expert")
    assert float(run(both, (s,))[0]) == pytest.approx(0.25 * 3 + 0.75 * 15)
    assert float(of_source("own", sum_over(4.0))(s)) == pytest.approx((1 + 3 + 5) / 4 / 2)
    alone = s.filled(source=None, sources=("own",))
    assert torch.equal(of_source("own")(alone), token_mean()(alone))
    with pytest.raises(InputError, match="of_source names 'other'"):
        of_source("other")(s)
