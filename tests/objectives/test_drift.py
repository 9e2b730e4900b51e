"""Drifts: what makes one valid, and PPO as one."""

from __future__ import annotations

import pytest
import torch

from surpass.objectives.drift import (
    clipped_away,
    discovered,
    drift_net,
    learned,
    mirror,
    no_drift,
    weights_of,
)
from surpass.objectives.trust import clip
from surpass.objectives.views import Steps


def random_weights(seed, hidden=8):
    g = torch.Generator().manual_seed(seed)
    return tuple((2.0 * torch.randn(9 * hidden, generator=g)).tolist())


VALID = {
    "none": no_drift(), "ppo": clipped_away(0.1, 0.3), "discovered": discovered(),
    "discovered, other constants": discovered(0.5, 3.0),
    "learned": learned(random_weights(0), 8),
    "learned from ppo": learned(random_weights(1), 8, 0.2),
}  # fmt: skip


def grid(log_ratio, advantage):
    a, x = torch.meshgrid(advantage, log_ratio, indexing="ij")
    return Steps(logp=x, mask=torch.ones_like(x), log_ratio=x, advantage=a)


@pytest.mark.parametrize("name", VALID)
def test_a_drift_is_valid(name):
    """Nothing below 0; at r = 1 value and slope are 0, whatever the advantage."""
    advantage = torch.linspace(-4, 4, 17, dtype=torch.float64)
    far = grid(torch.linspace(-3, 2, 501, dtype=torch.float64), advantage)
    assert float(VALID[name](far).min()) >= 0.0
    here = torch.zeros(1, dtype=torch.float64).requires_grad_(True)
    value = VALID[name](grid(here, advantage)) + 0.0 * here
    (slope,) = torch.autograd.grad(value.sum(), here)
    assert float(value.detach().abs().max()) == 0.0
    assert float(slope.abs().max()) <= 1e-6


def test_ppo_is_a_drift_with_the_same_loss_and_gradient():
    g = torch.Generator().manual_seed(0)
    found = []
    for trust in (clip(0.2, 0.3), mirror(clipped_away(0.2, 0.3))):
        x = (0.5 * torch.randn(64, 8, generator=g.manual_seed(0))).requires_grad_(True)
        a = torch.randn(64, 8, generator=g)
        value = trust(Steps(logp=x, mask=torch.ones_like(a), log_ratio=x, advantage=a))
        found.append((value.detach(), torch.autograd.grad(value.sum(), x)[0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert float((found[0][1] == 0).float().mean()) > 0.1  # some are held


def test_the_discovered_drift_by_hand():
    ratio = torch.tensor([[3.0, 0.5, 3.0, 0.5]])
    a = torch.tensor([[1.5, 1.5, -1.5, -1.5]])
    s = Steps(logp=ratio, mask=torch.ones_like(a), log_ratio=ratio.log(), advantage=a)
    good = 3.0 - 2.0 * torch.tanh(torch.tensor(3.0 / 2.0))  # x = (3 - 1) 1.5
    x = 1.5 * torch.log(torch.tensor(2.0))
    bad = x - 0.6 * torch.tanh(x / 0.6)
    want = torch.tensor([[float(good), 0.0, 0.0, float(bad)]])
    torch.testing.assert_close(discovered()(s), want)


def test_a_learned_drift_vanishes_about_one_and_starts_where_it_is_told():
    into, out = weights_of(torch.arange(18.0))
    assert into.shape == (2, 8) and out.tolist() == [16.0, 17.0]
    near = grid(torch.linspace(-1e-6, 1e-6, 5), torch.linspace(-2, 2, 5))
    assert float(learned(random_weights(0), 8)(near).abs().max()) == 0.0
    some = grid(torch.linspace(-1, 1, 41), torch.linspace(-2, 2, 9))
    assert float(drift_net(torch.tensor(random_weights(0)), some.log_ratio, some.advantage)
                 .abs().max()) > 1.0  # fmt: skip
    want = torch.relu(clipped_away(0.2, 0.2)(some) - 1e-4)
    torch.testing.assert_close(learned(start=0.2)(some), want)
