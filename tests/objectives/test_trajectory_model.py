"""Diffusion over segments: entries and their scales by hand, guidance on Gaussians."""

import math

import pytest
import torch

from surpass.objectives.rows import Rows
from surpass.objectives.trajectory_model import (
    Layout,
    guide_strength,
    guided_segments,
    trajectory_loss,
)


def columns(n=500, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "obs": 3.0 + 2.0 * torch.randn(n, 2, generator=g),
        "action": 0.9 * (2 * torch.rand(n, 1, generator=g) - 1),
        "reward": torch.randn(n, generator=g), "terminated": torch.zeros(n),
    }  # fmt: skip


def test_segments_come_back_from_their_points():
    table = columns()
    layout = Layout.of(table)
    segment = {k: v[:12].unflatten(0, (3, 4)) for k, v in table.items()}
    x = layout.flat(segment)
    assert x.shape == (3, 4 * 5)
    back = layout.columns(x)
    for name in ("obs", "action", "reward"):
        torch.testing.assert_close(back[name], segment[name], rtol=1e-4, atol=1e-4)
    assert not bool(back["terminated"].any())


def test_points_are_standardized_by_the_whole_log_and_constants_stay_as_they_are():
    table = columns(5_000)
    layout = Layout.of(table)
    x = layout.flat({k: v[None] for k, v in table.items()}).reshape(5_000, 5)
    torch.testing.assert_close(x.mean(0), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std(0), torch.tensor([1.0, 1, 1, 1, 0]), rtol=1e-3, atol=1e-4)
    made = layout.columns(torch.randn(50, 3 * 5))
    assert not bool(made["terminated"].any())


def test_the_loss_of_a_net_that_answers_nothing():
    """D = c_skip x: per entry of unit variance the weighted error is 1 in expectation."""
    torch.manual_seed(0)
    table = columns(4_000)
    table["terminated"] = (torch.rand(4_000) < 0.5).float()
    rows = Rows({k: v.unflatten(0, (1_000, 4)) for k, v in table.items()}, log=table)
    nets = {"denoiser": lambda x, level: torch.zeros_like(x)}
    loss = trajectory_loss()(nets, rows)  # type: ignore[arg-type]
    assert float(loss.mean()) == pytest.approx(1.0, abs=0.05)


def test_the_guide_fades():
    strengths = [guide_strength(i, 10, 2.0) for i in range(10)]
    assert strengths[0] == pytest.approx(2.0 * (1 + 0.3 * math.sin(math.pi / 10)))
    assert strengths[9] == pytest.approx(2.0 * 0.1, abs=1e-9)


def test_guidance_moves_actions_toward_the_policy_and_leaves_what_does_not_depend_on_them():
    """The exact model of independent standard entries: D = x / (sigma^2 + 1), so the net is 0.
    Unguided artanh(a) ~ N(0, 1); a policy at 0.6 pulls it there, more with the weight."""
    layout = Layout(1, 1, torch.zeros(4), torch.ones(4))
    middle, states = [], []
    for weight in (0.0, 0.5, 2.0):
        torch.manual_seed(0)
        x = guided_segments(
            lambda x, level: torch.zeros_like(x), layout, 400, 3,
            lambda obs, action: -0.5 * ((action - 0.6) / 0.1).square().sum(-1),
            weight, steps=24, churn=0.0,
        )  # fmt: skip
        found = layout.columns(x)
        middle.append(float((found["action"] - 0.6).abs().mean()))
        states.append(found["obs"])
    assert middle[0] > middle[1] + 0.02 > middle[2] + 0.04
    torch.testing.assert_close(states[0], states[2])
    assert float(states[0].std()) == pytest.approx(1.0, abs=0.1)
