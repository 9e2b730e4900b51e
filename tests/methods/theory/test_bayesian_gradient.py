"""Gradients as integrals over Gaussian processes: exact where they must be, and by brute force."""

import math

import numpy as np
import pytest
import torch

import surpass as sp
from surpass.errors import InputError
from surpass.forms import Spaces
from surpass.methods.theory.bayesian_gradient import bayes_ac, bayes_pg
from surpass.objectives.bayesian_gradient import (
    action_values,
    differences,
    fisher,
    fisher_kernel,
    integrand_model,
    return_model,
)
from surpass.policies.score_vectors import (
    bayesian_critic,
    bayesian_quadrature,
    score_vectors,
    state_fisher,
)
from surpass.policies.stochastic import stochastic
from surpass.tasks.linear_quadratic import LinearQuadratic
from surpass.training.rollouts import SequenceRows


def scores(n, M, seed=0):
    g = torch.Generator().manual_seed(seed)
    U = torch.randn(n, M, generator=g, dtype=torch.float64)
    A = torch.randn(n, n, generator=g, dtype=torch.float64)
    return U, A @ A.T + torch.eye(n, dtype=torch.float64)


def test_returns_that_the_kernel_can_say_give_the_exact_gradient():
    """R = c + u'w has the gradient E[R u] = G w: Model 2 needs c = 0 and n trajectories, Model 1 as
    many as there are products of 1 and the scores."""
    U, G = scores(3, 16)
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = return_model(U[:, :3], U[:, :3].T @ w, G, 1e-6)
    torch.testing.assert_close(found.mean, G @ w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.covariance, torch.zeros_like(G), atol=1e-6, rtol=0)
    found = integrand_model(U, 7.0 + U.T @ w, G, 1e-5)
    torch.testing.assert_close(found.mean, G @ w, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.covariance, torch.zeros_like(G), atol=1e-5, rtol=0)
    plain = U @ (7.0 + U.T @ w) / 16
    assert float((plain - G @ w).norm()) > 0.5


def test_both_models_are_the_integral_of_their_regression():
    """One action a ~ N(0.3, 0.5^2), theta its mean: u = (a - 0.3) / 0.25, G = 4. The posterior mean
    and covariance of the integrand, on a grid, times the density of a."""
    g = torch.Generator().manual_seed(1)
    U = (0.5 * torch.randn(1, 6, generator=g, dtype=torch.float64)) / 0.25
    y = (0.3 + 0.25 * U[0]).square()
    G = torch.full((1, 1), 4.0, dtype=torch.float64)
    z = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    u = (0.5 * z / 0.25)[None]
    p = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    linear = [a.T @ b / 4.0 for a, b in ((u, U), (U, U), (u, u))]
    for solve, kernel, outer, inner in (
        (integrand_model, lambda k: (1 + k) ** 2, 1.0, y * U[0]),
        (return_model, lambda k: k, u[0], y),
    ):
        cross, own, prior = map(kernel, linear)
        C = torch.linalg.inv(own + 0.2**2 * torch.eye(6, dtype=torch.float64))
        found = solve(U, y, G, 0.2)
        weighed = p * outer
        assert float(found.mean) == pytest.approx(float(weighed @ cross @ C @ inner), rel=1e-6)
        spread = weighed @ (prior - cross @ C @ cross.T) @ weighed
        assert float(found.covariance) == pytest.approx(float(spread), abs=1e-8)


def test_with_much_noise_model_two_is_plain_monte_carlo():
    U, G = scores(3, 10)
    y = scores(1, 10, seed=1)[0][0]
    found = return_model(U, y, G, 1e4)
    torch.testing.assert_close(found.mean * 1e8, U @ y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.covariance, G, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(U @ found.weight, found.mean)


def test_fisher_of_the_same_scores_gives_monte_carlo_back():
    U, _ = scores(3, 12)
    y = scores(1, 12, seed=1)[0][0]
    found = return_model(U, y, fisher(U, 1e-9), 1e-4)
    torch.testing.assert_close(found.mean, U @ y / 12, rtol=1e-4, atol=1e-4)


def test_several_problems_at_once():
    g = torch.Generator().manual_seed(0)
    U = torch.randn(4, 3, 12, generator=g, dtype=torch.float64)
    y = torch.randn(4, 12, generator=g, dtype=torch.float64)
    G = fisher(U, 0.1)
    second = (U[1] @ U[1].T) / 12
    want = second + 0.1 * second.diagonal().mean() * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(G[1], want)
    inner = U[1, :, 2] @ want.inverse() @ U[1, :, 5]
    torch.testing.assert_close(fisher_kernel(U, G)[1, 2, 5], inner)
    for solve in (integrand_model, return_model):
        for both, one in zip(solve(U, y, G), solve(U[1], y[1], G[1]), strict=True):
            torch.testing.assert_close(both[1], one)


def test_temporal_differences_by_hand_and_two_ways_to_the_same_critic():
    """Two episodes, of two decisions and of one. With noise of returns the critic is a regression
    on discounted returns; with episodes of one decision both noises are Model 2."""
    H = differences(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 0.5)
    assert H.tolist() == [[1.0, -0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    U, G = scores(2, 3)
    reward = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    togo = torch.tensor([2.0, 2.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.solve(H, reward), togo)
    found, want = action_values(U, reward, G, H, 0.0, 0.4), return_model(U, togo, G, 0.4)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b)
    eye = torch.eye(3, dtype=torch.float64)
    for noise in ("returns", "rewards"):
        found = action_values(U, reward, G, eye, 0.0, 0.4, noise)
        torch.testing.assert_close(found.mean, return_model(U, reward, G, 0.4).mean)
    other = action_values(U, reward, G, H, 0.0, 0.4, "rewards")
    K = fisher_kernel(U, G)
    seen = torch.linalg.inv(H @ K @ H.T + 0.16 * eye)
    torch.testing.assert_close(other.mean, U @ (H.T @ seen @ reward))
    sure = action_values(U, reward, G, H, 100.0 * torch.ones(3, 3, dtype=torch.float64), 0.4)
    assert float(sure.weight.sum()) == pytest.approx(0.0, abs=0.1)  # a constant is no advantage


def played(seed=0, B=6, T=4):
    """Sequences of a linear Gaussian policy, the last masked behind its second decision."""
    torch.manual_seed(seed)
    policy = stochastic((), -0.5)(Spaces(2, 1))
    obs = torch.randn(B, T, 2)
    action, mask, reward = torch.randn(B, T, 1), torch.ones(B, T), torch.randn(B, T)
    mask[-1, 2:] = 0.0
    columns = {"obs": obs, "action": action, "mask": mask, "reward": reward * mask,
               "terminated": torch.zeros(B, T, dtype=torch.bool)}  # fmt: skip
    return policy, SequenceRows(columns)


def test_scores_of_a_linear_gaussian_by_hand():
    policy, seq = played()
    found = score_vectors(policy, seq.obs, seq.action, seq.mask)
    scale = math.exp(0.5)
    mean = policy(seq.obs.flatten(0, 1)).reshape(6, 4)
    z = ((seq.action[..., 0] - mean) * scale).detach()
    want = {
        "log_std": ((z**2 - 1) * seq.mask).sum(1, keepdim=True),
        "net.layers.0.weight": (z * scale * seq.mask)[..., None].mul(seq.obs).sum(1),
        "net.layers.0.bias": (z * scale * seq.mask).sum(1, keepdim=True),
    }
    names = [name for name, _ in policy.named_parameters()]
    assert sorted(names) == sorted(want)
    torch.testing.assert_close(found, torch.cat([want[n] for n in names], 1), rtol=1e-4, atol=1e-4)


def test_fisher_of_a_linear_gaussian_in_the_states_visited():
    """E[g g'] = s s' / sigma^2 for the mean, 2 for log sigma, and nothing between them."""
    policy, seq = played()
    torch.manual_seed(0)
    found = state_fisher(policy, seq.obs, seq.mask, 3000, 0.0)
    s = torch.cat([torch.ones(6, 4, 1), seq.obs], -1)[seq.mask > 0].double()
    moments = math.e * (s.T @ s) / len(s)
    size = {"log_std": 1, "net.layers.0.weight": 2, "net.layers.0.bias": 1}
    at = {"net.layers.0.weight": [1, 2], "net.layers.0.bias": [0], "log_std": [3]}
    order = [i for name, _ in policy.named_parameters() for i in at[name]]
    want = torch.zeros(4, 4, dtype=torch.float64)
    want[:3, :3], want[3, 3] = moments, 2.0
    assert len(order) == sum(size.values())
    torch.testing.assert_close(found, want[order][:, order], atol=0.1, rtol=0.05)


@pytest.mark.parametrize("model", [1, 2])
def test_the_loss_moves_along_the_posterior_mean(model):
    policy, seq = played()
    torch.manual_seed(3)
    judged = bayesian_quadrature(model, 0.4, 0.9)({"policy": policy}, seq)
    logp = policy.logp(seq.obs.flatten(0, 1), seq.action.flatten(0, 1)).reshape(6, 4)
    (logp * judged.advantage).sum(1).mean().backward()
    got = torch.cat([p.grad.flatten() for p in policy.parameters()]).double()
    U = score_vectors(policy, seq.obs, seq.action, seq.mask).double().mT
    y = (seq.reward * 0.9 ** torch.arange(4)).sum(1).double()
    torch.manual_seed(3)
    G = state_fisher(policy, seq.obs, seq.mask, 8, 1e-3) * 22 / 6  # decisions, trajectories
    solve = integrand_model if model == 1 else return_model
    mean = solve(U, y - y.mean(), G, 0.4).mean
    torch.testing.assert_close(got, mean, rtol=1e-3, atol=1e-4)
    assert not judged.advantage[-1, 2:].any()


def test_the_critic_weighs_decisions_as_if_what_is_masked_were_not_there():
    policy, seq = played()
    torch.manual_seed(3)
    judged = bayesian_critic(0.4, 0.9)({"policy": policy}, seq).advantage
    torch.manual_seed(3)
    G = state_fisher(policy, seq.obs, seq.mask, 8, 1e-3)
    keep = seq.mask.reshape(-1) > 0
    obs, action = seq.obs.flatten(0, 1)[keep], seq.action.flatten(0, 1)[keep]
    ones = torch.ones(int(keep.sum()), 1)
    U = score_vectors(policy, obs[:, None], action[:, None], ones).double().mT
    goes_on = torch.tensor([1.0, 1.0, 1.0, 0.0] * 5 + [1.0, 0.0], dtype=torch.float64)
    x = obs.double()
    states = torch.exp(-0.5 * (x[:, None] - x[None]).square().sum(-1))
    reward = seq.reward.reshape(-1)[keep].double()
    found = action_values(U, reward, G, differences(goes_on, 0.9), states, 0.4)
    torch.testing.assert_close(judged.reshape(-1)[keep].double(), 6 * found.weight,
                               rtol=1e-3, atol=1e-4)  # fmt: skip
    assert not judged[-1, 2:].any()


@pytest.mark.parametrize("form", [
    bayes_pg(paths=20, horizon=20, lr=3e-2, log_std=-1.0),
    bayes_ac(paths=20, horizon=20, lr=3e-2, log_std=-1.0, gamma=0.9),
])  # fmt: skip
def test_it_learns_to_hold_a_linear_system(form):
    env = LinearQuadratic(horizon=20)
    trained = sp.train(form, task=env, steps=100 * 400, seed=0, compile=False)
    gain = -np.diff(trained.predict(np.array([[0.0], [1.0]], dtype=np.float32)), axis=0)
    assert gain.item() == pytest.approx(env.gain, abs=0.2)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="model is 1 or 2"):
        bayes_pg(3)
    with pytest.raises(InputError, match="noise is of returns"):
        bayes_ac(noise="both")
