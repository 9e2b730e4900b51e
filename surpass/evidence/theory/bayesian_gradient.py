"""Evidence for Bayesian policy gradients: how far estimates are from exact gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_most, evidence
from surpass.objectives.bayesian_gradient import (
    Gradient,
    action_values,
    differences,
    fisher,
    integrand_model,
    return_model,
)

REPEATS, COUNTS, STEPS = 500, (5, 10, 20, 40, 80), 20
THETA = torch.tensor([-0.2, 1.0], dtype=torch.float64)
# The best of 0.1, 0.3, 1 and 3 for each on seeds 100 to 102.
SIGMA, SIGMA_BANDIT, SIGMA_RETURN, SIGMA_CRITIC = 0.3, 0.1, 0.3, 0.3


class Seen(NamedTuple):
    """Scores [R, 2, M], returns [R, M], and for a critic, of all decisions: scores [R, 2, M T],
    rewards and states [R, M T]."""

    U: Tensor
    y: Tensor
    each: Tensor
    reward: Tensor
    state: Tensor


def regulated(M: int, g: torch.Generator) -> Seen:
    """Trajectories of x' = x + a + noise, a ~ N(theta_0 x, theta_1^2), which cost x^2 + a^2 / 10 a
    step."""
    (gain, spread), shape = THETA, (REPEATS, M)

    def normal() -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    x = 0.3 + 0.001**0.5 * normal()
    each, reward, state = [], [], []
    for _ in range(STEPS):
        z = normal()
        a = gain * x + spread * z
        each.append(torch.stack([z * x / spread, (z**2 - 1) / spread], 1))
        reward.append(-(x**2 + 0.1 * a**2))
        state.append(x)
        x = x + a + 0.1 * normal()
    u, r, s = torch.stack(each, -1), torch.stack(reward, -1), torch.stack(state, -1)
    return Seen(u.sum(-1), r.sum(-1), u.flatten(-2), r.flatten(-2), s.flatten(-2))


def exact() -> Tensor:
    """The gradient of the expected return, from the second moments of x."""
    theta = THETA.clone().requires_grad_()
    m, total = theta.new_tensor(0.3**2 + 0.001), theta.new_zeros(())
    for _ in range(STEPS):
        total = total - (m + 0.1 * (theta[0] ** 2 * m + theta[1] ** 2))
        m = (1 + theta[0]) ** 2 * m + theta[1] ** 2 + 0.01
    return torch.autograd.grad(total, theta)[0]


def bandit(M: int, power: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and returns a^power of actions from N(0, 1), and the gradient in mean and spread."""
    a = torch.randn(REPEATS, M, generator=g, dtype=torch.float64)
    truth = torch.tensor([1.0, 0.0] if power == 1 else [0.0, 2.0], dtype=torch.float64)
    return torch.stack([a, a**2 - 1], 1), a**power, truth


def plain(U: Tensor, y: Tensor) -> Tensor:
    """Monte Carlo."""
    return (U * y[:, None]).mean(-1)


def with_baseline(U: Tensor, y: Tensor, optimal: bool) -> Tensor:
    """Less the mean return of the others, or less the best baseline of each parameter, from the
    others."""
    weight = U**2 if optimal else torch.ones_like(U)
    whole, paid = weight.sum(-1, keepdim=True), (weight * y[:, None]).sum(-1, keepdim=True)
    b = (paid - weight * y[:, None]) / (whole - weight).clamp_min(1e-12)
    return (U * (y[:, None] - b)).mean(-1)


def error(found: Tensor, truth: Tensor) -> float:
    """The mean squared error over the repeats."""
    return float((found - truth).square().sum(-1).mean())


def centered(y: Tensor) -> Tensor:
    """Less the mean of the batch."""
    return y - y.mean(-1, keepdim=True)


def covered(found: Gradient, G: Tensor, U: Tensor, y: Tensor, truth: Tensor) -> float:
    """Percent of 95 % intervals of Model 1 that hold the gradient, the prior's scale that of the
    integrand."""
    inner = (U * torch.linalg.solve(G, U)).sum(1)
    size = (U * y[:, None]).square().mean(-1) / (1 + inner).square().mean(-1, keepdim=True)
    spread = (found.covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0) * size).sqrt()
    return 100 * float(((found.mean - truth).abs() <= 1.96 * spread).double().mean())


def visited(seen: Seen, M: int) -> Tensor:
    """Fisher's matrix of an episode from the states that were visited."""
    spread = float(THETA[1])
    return torch.diag_embed(torch.stack([
        seen.state.square().sum(-1) / M / spread**2,
        torch.full((REPEATS,), 2.0 * STEPS / spread**2, dtype=torch.float64),
    ], -1))  # fmt: skip


def critic(seen: Seen, M: int, sigma: float) -> Tensor:
    """Of an episode, by the Bayesian critic."""
    goes_on = torch.ones(M, STEPS, dtype=torch.float64)
    goes_on[:, -1] = 0.0
    H = differences(goes_on.flatten(), 1.0)
    apart = seen.state[:, :, None] - seen.state[:, None]
    y = seen.reward - seen.reward.mean(-1, keepdim=True)
    kernel = torch.exp(-0.5 * apart.square())
    G = visited(seen, M) / STEPS
    return STEPS * action_values(seen.each, y, G, H, kernel, sigma).mean


@evidence(
    "bayes-pg",
    claim="on a linear system, Model 1's gradient of 5 to 80 trajectories has at most 0.8 times "
    "the squared error of Monte Carlo with the better of two baselines",
    baseline="Monte Carlo less the mean return, or less the baseline of the least variance, of the "
    "other trajectories; the noise of both models the best of four on seeds 100 to 102",
    metric="mean squared error of the gradient, geometric mean over 5, 10, 20, 40 and 80 "
    "trajectories",
    bar=at_most(0.8, times=True), seeds=5, minutes=1.0,
    setting="20 steps, two parameters, 500 repeats; bandits of one action with its reward and its "
    "square; Fisher's matrix is that of the states visited, in bandits the exact one.",
)  # fmt: skip
def bayesian_gradient_evidence(seed: int, zoo: Any) -> Result:
    """Also: the worst of the five counts; against plain Monte Carlo; Model 2; bandits; the share of
    intervals that hold the gradient; and the critic."""
    g, truth = torch.Generator().manual_seed(seed), exact()
    ours, based, crude, second = [], [], [], []
    held, blind = 0.0, (0.0, 0.0)
    for M in COUNTS:
        seen = regulated(M, g)
        G, y = visited(seen, M), centered(seen.y)
        found = integrand_model(seen.U, y, G, SIGMA)
        ours.append(error(found.mean, truth))
        based.append(min(error(with_baseline(seen.U, seen.y, o), truth) for o in (False, True)))
        crude.append(error(plain(seen.U, seen.y), truth))
        second.append(error(return_model(seen.U, y, G, SIGMA_RETURN).mean, truth))
        held = covered(found, G, seen.U, y, truth) if M == 20 else held
        if M == 20:
            again = error(integrand_model(seen.U, y, fisher(seen.U), SIGMA).mean, truth)
            blind = (again, ours[-1])
    few = regulated(5, g)
    arms: dict[str, tuple[Any, ...]] = {}
    for power, name in ((1, "linear"), (2, "square")):
        U, y, wanted = bandit(20, power, g)
        G, rough = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64)), plain(U, y)
        for number, solve in ((1, integrand_model), (2, return_model)):
            found = error(solve(U, centered(y), G, SIGMA_BANDIT).mean, wanted)
            metric = f"error on a {name} bandit, Model {number}, against plain"
            arms[metric] = found, error(rough, wanted), at_most(0.25, times=True)
    logs = (torch.tensor([ours, based, crude, second]) + 1e-30).log()
    a, b, c, d = (float(x) for x in logs.mean(1).exp())
    return Result(
        a, b,
        also={"the worst ratio of the five": (
                  float((logs[0] - logs[1]).max().exp()), 1.0, at_most(1.0, alone=True)),
              "error against plain Monte Carlo": (a, c, at_most(0.4, times=True)),
              "error of Model 2 against plain Monte Carlo": (d, c, at_most(0.85, times=True)),
              **arms,
              "percent of intervals that hold the gradient, 20 trajectories": (held, 95.0),
              "error with Fisher's matrix of the same scores, 20 trajectories": blind,
              "error of the critic, 5 trajectories, against the better baseline": (
                  error(critic(few, 5, SIGMA_CRITIC), truth), based[0])},
    )  # fmt: skip
