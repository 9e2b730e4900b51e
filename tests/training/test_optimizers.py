"""Adam over explicit state equals torch's."""

import pytest
import torch

from surpass.forms import adam
from surpass.parts import linear
from surpass.training.optimizers import Moments, adam_numbers, adam_update


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (adam(1e-2), lambda p: torch.optim.Adam(p, 1e-2)),
        (adam(1e-2, (0.5, 0.9), 1e-3), lambda p: torch.optim.Adam(p, 1e-2, (0.5, 0.9), 1e-3)),
        (adam(1e-2, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1)),
        (adam(1e-2, max_norm=0.5), lambda p: torch.optim.Adam(p, 1e-2)),
    ],
)
def test_adam_equals_torchs(ours, theirs):
    p = {"a": torch.randn(4, 3), "b": torch.randn(2)}
    modules = [v.clone().requires_grad_() for v in p.values()]
    optimizer = theirs(modules)
    moments = Moments(*({k: torch.zeros_like(v) for k, v in p.items()} for _ in range(2)))
    for step in range(20):
        g = {k: torch.randn_like(v) for k, v in p.items()}
        for q, gradient in zip(modules, g.values(), strict=True):
            q.grad = gradient.clone()
        if ours.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(modules, ours.max_norm)
        optimizer.step()
        numbers = tuple(torch.tensor(n) for n in adam_numbers(ours, step, step + 1))
        p, moments = adam_update(ours, p, g, moments, numbers)
    for a, b in zip(p.values(), modules, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6)


def test_the_learning_rate_follows_its_schedule():
    rate, scaled, correction = adam_numbers(adam(linear(1.0, 0.0, steps=10)), 4, 2)
    assert rate == pytest.approx(0.6)
    assert scaled == pytest.approx(0.6 / (1 - 0.9**2))
    assert correction == pytest.approx(1 / (1 - 0.999**2))
