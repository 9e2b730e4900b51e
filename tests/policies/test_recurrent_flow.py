"""Flows that are trained through their steps: velocities, densities of paths, what reaches x_0."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.objectives.denoising import noisy_euler
from surpass.policies.recurrent_flow import DecoderVelocity, recurrent_flow

SPACES = Spaces(3, 2, 0, (-1.0, -1.0), (1.0, 1.0))
NORMAL = torch.distributions.Normal


def made(*hyper: Any, spaces: Spaces = SPACES, **more: Any) -> Any:
    """The net."""
    return recurrent_flow(*hyper, **more)(spaces)


def test_gates_start_open_and_the_candidate_replaces_x():
    torch.manual_seed(0)
    pi, obs = made(4, 16), torch.randn(8, 3)
    x, time = torch.randn(8, 2), torch.full((8,), 0.25)
    z = 1 / (1 + math.exp(-5.0))
    candidate = pi.net.candidate.at(obs)(x, time)
    torch.testing.assert_close(pi.velocity(obs)(x, time), z * (candidate - x))


def test_a_plain_flow_is_the_candidate_alone():
    torch.manual_seed(0)
    gated, plain = (made(4, 16, v) for v in ("gated", "plain"))
    plain.net.load_state_dict(gated.net.candidate.state_dict())
    obs, x, time = torch.randn(8, 3), torch.randn(8, 2), torch.full((8,), 0.25)
    found = plain.velocity(obs)(x, time)
    torch.testing.assert_close(found, gated.net.candidate.at(obs)(x, time))


def test_the_decoder_is_torch_s_on_one_token_and_one_of_memory():
    """Both softmaxes are over one key: attention is out_proj of v_proj, heads or not."""
    torch.manual_seed(0)
    net, width = DecoderVelocity(3, 2, 16, layers=2), 16
    layers = [
        nn.TransformerDecoderLayer(width, 4, 64, 0.0, nn.functional.gelu, batch_first=True,
                                   norm_first=True) for _ in range(2)
    ]  # fmt: skip
    with torch.no_grad():
        blocks: Any = net.blocks
        for layer, block in zip(layers, blocks, strict=True):
            for attention, linear in (
                (layer.self_attn, block.own), (layer.multihead_attn, block.state),
            ):  # fmt: skip
                value = attention.in_proj_weight[2 * width :]
                linear.weight.copy_(attention.out_proj.weight @ value)
                bias = attention.in_proj_bias[2 * width :].uniform_()
                linear.bias.copy_(attention.out_proj.weight @ bias + attention.out_proj.bias)
            for name, other in (("linear1", block.wide), ("linear2", block.back),
                                ("norm1", block.norms[0]), ("norm3", block.norms[1])):  # fmt: skip
                other.load_state_dict(getattr(layer, name).state_dict())
    obs, x, time = torch.randn(5, 3), torch.randn(5, 2), torch.full((5,), 0.5)
    hooked: dict[str, Any] = {}
    net.norm.register_forward_hook(lambda m, given, out: hooked.update(token=given[0]))
    net.blocks[0].register_forward_hook(lambda m, given, out: hooked.update(first=given))
    net.at(obs)(x, time)
    token, state = hooked["first"]
    token, state = token[:, None], state[:, None]
    for layer in layers:
        token = layer(token, state)
    torch.testing.assert_close(hooked["token"], token[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("velocity", ["gated", "plain", "decoder"])
def test_the_density_is_that_of_the_path(velocity):
    """Its Gaussians, less the logarithm of the tanh's slope."""
    torch.manual_seed(0)
    pi, obs = made(2, 16, velocity, log_std=(-1.0, -1.0)), torch.randn(5, 3)
    torch.manual_seed(3)
    action, logp = pi.sample(obs)
    torch.manual_seed(3)
    x = torch.randn(5, 2)
    expected = NORMAL(0.0, 1.0).log_prob(x)
    for time in (0.0, 0.5):
        mean = x + pi.velocity(obs)(x, torch.full((5,), time)) / 2
        x = mean + math.exp(-1.0) * torch.randn(5, 2)
        expected = expected + NORMAL(mean, math.exp(-1.0)).log_prob(x)
    expected = (expected - torch.log(1 - torch.tanh(x).square())).sum(-1)
    torch.testing.assert_close(action, torch.tanh(x))
    torch.testing.assert_close(logp, expected, rtol=1e-4, atol=1e-4)


def test_the_density_of_paths_integrates_to_one():
    """E_p[q / p] = 1 for any density q of start and action inside the support of p; here a narrow
    Gaussian of the start times a uniform law of the action."""
    torch.manual_seed(0)
    pi = made(1, 16, log_std=(-0.5, -0.5), spaces=Spaces(1, 1, 0, (-1.0,), (1.0,)))
    n = 200_000
    with torch.no_grad():
        torch.manual_seed(1)
        action, logp = pi.sample(torch.zeros(n, 1))
        torch.manual_seed(1)
        start = torch.randn(n, 1)
    uniform = (action[:, 0].abs() < 0.8).float() / 1.6
    chosen = NORMAL(0.0, 0.5).log_prob(start[:, 0]).exp() * uniform
    assert float((chosen / logp.exp()).mean()) == pytest.approx(1.0, abs=0.02)


def test_gradient_reaches_the_start_through_all_steps():
    """With v = z (h - x) and h blind to x, d x_F / d x_0 = (1 - z / F)^F; a plain blind velocity
    passes it on whole."""
    torch.manual_seed(0)
    for velocity, expected in (("gated", (1 - 1 / (1 + math.exp(-5.0)) / 6) ** 6), ("plain", 1.0)):
        pi = made(6, 8, velocity, log_std=(-20.0, -20.0))
        into = (pi.net.candidate if velocity == "gated" else pi.net).into
        with torch.no_grad():
            into.weight[:, 3:5] = 0.0
        obs = torch.zeros(4, 3)
        start = torch.randn(4, 2, requires_grad=True)
        end, _ = noisy_euler(pi.velocity(obs), start, 6, 1e-8)
        (slope,) = torch.autograd.grad(end.sum(), start)
        torch.testing.assert_close(slope, torch.full((4, 2), expected))


def test_imitation_learns_what_was_done():
    """The action of a state is its tanh; the velocity is matched before the tanh."""
    torch.manual_seed(0)
    pi = made(4, 32, log_std=(-4.0, -4.0), spaces=Spaces(1, 1, 0, (-1.0,), (1.0,)))
    optimizer = torch.optim.Adam(pi.parameters(), 1e-2)
    for _ in range(150):
        obs = 2 * torch.rand(256, 1) - 1
        loss = pi.imitation(obs, torch.tanh(obs)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    obs = torch.tensor([[-0.8], [0.0], [0.8]])
    with torch.no_grad():
        drawn = pi.sample(obs, 1_000)[0].mean(0)
    torch.testing.assert_close(drawn, torch.tanh(obs), atol=0.1, rtol=0.0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="discrete"):
        recurrent_flow()(Spaces(3, n_actions=2))
    with pytest.raises(InputError, match="no velocity 'gru'; there are plain, gated, decoder"):
        recurrent_flow(velocity="gru")(SPACES)
