"""A return that is hit: the sign and the size of the pull, and the nearest policy of a bandit."""

import math

import pytest
import torch

from surpass.data.records import Sequences
from surpass.methods.theory.counterfactual import counterpol
from surpass.objectives.advantage import batch_centered
from surpass.objectives.divergence import k3
from surpass.objectives.targeting import toward
from surpass.objectives.trust import ratio_loss
from surpass.objectives.views import Steps


def episodes(reward):
    reward = torch.tensor(reward)
    return Sequences(action=torch.zeros_like(reward).long(), mask=torch.ones_like(reward),
                     reward=reward, batch_size=[len(reward)])  # fmt: skip


def test_the_pull_by_hand():
    seq = episodes([[1.0, 1.0], [3.0, 1.0]])  # returns 2 and 4
    inner = batch_centered()(seq)
    for target, factor in ((5.0, 2 * 2 / 100), (1.0, -2 * 2 / 100), (3.0, 0.0)):
        torch.testing.assert_close(toward(batch_centered(), target, 10.0)(seq), factor * inner)


def test_descent_ends_at_the_nearest_policy_of_that_return():
    """Three arms, exactly: of all policies with E[r] = 2, that with the least KL(start || .) has
    p_a ~ start_a / (1 + lam (r_a - 2))."""
    r, start = torch.tensor([0.0, 1.0, 4.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    logits = start.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.01)
    weight, mask = 1e-3, torch.ones(3, 1).double()
    for _ in range(3000):
        logp = logits.log_softmax(0)
        p = logp.detach().exp()
        gain = 2 * (2.0 - p @ r) / 16 * (r - p @ r)
        steps = Steps(logp[:, None], mask, anchor_logp=logp.detach()[:, None],
                      ref_logp=start.log()[:, None], advantage=gain[:, None],
                      log_ratio=(logp - logp.detach())[:, None])  # fmt: skip
        loss = (1 - weight) * ratio_loss()(steps) + weight * k3()(steps)
        optimizer.zero_grad()
        (p[:, None] * loss).sum().backward()
        optimizer.step()
    found = logits.detach().softmax(0)
    low, high = -1 / 2 + 1e-9, 1 / 2 - 1e-9
    for _ in range(200):  # E[r] falls with lam
        lam = (low + high) / 2
        nearest = start / (1 + lam * (r - 2))
        nearest /= nearest.sum()
        low, high = (lam, high) if float(nearest @ r) > 2 else (low, lam)
    assert float(found @ r) == pytest.approx(2.0, rel=0.05)
    assert float((start * (start / found).log()).sum()) == pytest.approx(
        float((start * (start / nearest).log()).sum()), rel=0.1)  # fmt: skip
    torch.testing.assert_close(found, nearest, atol=0.03, rtol=0)


def test_the_recipe_reads_as_it_should():
    form = counterpol(150.0, span=500.0, weight=0.25, pivot=10)
    assert form.advantage == toward(batch_centered(), 150.0, 500.0)
    assert form.nets["reference"].every == 10 and math.isclose(form.optimizer.lr, 1e-3)
