"""The online net: its step is autograd's gradient, its spread NeuralUCB's, by torch as the
oracle."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from surpass.critics.online_nets import OnlineNet
from surpass.errors import InputError

X = torch.tensor([[3.0, 4.0]])


def outputs(theta, start, sides, x, actions, m):
    """f_s for every action [A, S], written with torch."""
    W = theta[: actions * m * 3].reshape(actions, m, 3)
    f = torch.tanh(W @ x) @ theta[-m:] / m**0.5
    return f[:, None] + sides @ (theta - start)


@pytest.mark.parametrize("loss", ["square", "kl"])
def test_a_step_goes_down_autograds_gradient(loss):
    net = OnlineNet(loss, width=5, rate=0.5, perturbation=0.3).begin(1, 2, 3, 0)
    x = torch.tensor([0.6, 0.8, 0.2])
    for reward in (1.0, 0.0):
        theta = torch.from_numpy(net.theta.copy()).requires_grad_()
        start, sides = torch.from_numpy(net.start), torch.from_numpy(net.sides)
        f = outputs(theta, start, sides, x, 3, 5)
        read = f if loss == "square" else f.sigmoid()
        predicted = 1 - net.outlook(X).mean[0]
        assert torch.allclose(predicted, read.mean(1).detach().double(), atol=1e-6)
        y = torch.full_like(f[1], 1 - reward)
        miss = (f[1] - y) ** 2 / 2 if loss == "square" else cross_entropy(f[1], y, reduction="none")
        miss.mean().backward()
        net.learn(
            SimpleNamespace(context=X, action=torch.tensor([1]), reward=torch.tensor([reward]))
        )
        wanted = theta.detach() - 0.5 * theta.grad
        assert np.allclose(net.theta, wanted.numpy(), atol=1e-5)


def test_the_ball_holds_each_layer():
    net = OnlineNet("square", width=4, rate=50.0, radius=0.1).begin(1, 2, 2, 0)
    net.learn(SimpleNamespace(context=X, action=torch.tensor([0]), reward=torch.tensor([0.0])))
    moved = net.theta - net.start
    assert all(np.linalg.norm(moved[layer]) <= 0.1 + 1e-5 for layer in net.layers)
    assert np.linalg.norm(moved[net.layers[0]]) == pytest.approx(0.1, rel=1e-4)


def test_the_spread_is_the_gradients_norm_under_the_diagonal():
    net = OnlineNet("square", width=3, perturbation=0.0, ridge=2.0).begin(1, 2, 2, 0)
    theta = torch.from_numpy(net.theta.copy()).requires_grad_()
    x = torch.tensor([0.6, 0.8, 0.2])
    f = outputs(theta, theta.detach(), torch.zeros(1, len(theta)), x, 2, 3)
    (g,) = torch.autograd.grad(f[0, 0], theta)
    spread = net.outlook(X).spread
    assert float(spread[0, 0]) == pytest.approx(float((g.square() / 2).sum().sqrt()), rel=1e-5)
    net.learn(SimpleNamespace(context=X, action=torch.tensor([0]), reward=torch.tensor([0.0])))
    assert float(net.outlook(X).spread[0, 0]) < float(spread[0, 0])
    with pytest.raises(InputError, match="'square' or 'kl'"):
        OnlineNet("hinge")
