"""Fitted Q evaluation on single steps, for any policy: what its actions are worth, by repeated
ridge regression on random features.

    theta <- argmin sum (phi(s, a)' theta - r - gamma (1 - terminated) q(s', pi))^2 + ridge
    |theta|^2

Each round solves against the same factored Gram matrix. Values are kept between those of the lowest
and the highest reward for ever, so a policy far from the log cannot make them diverge. Le, Voloshin
and Yue, Batch policy learning under constraints (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.fitted_q import Fourier
from surpass.data.records import Transitions

__all__ = ["ActionValues", "Features", "evaluate_actions", "fit_values", "linear", "taken"]

Features = Callable[[Tensor], Tensor]
Chooser = Callable[[Tensor], Tensor]
"""Observations [N, d] to the policy's continuous actions [N, k], or to probabilities [N, A]."""

_MOST_ROWS = 20_000


def linear(x: Float[Tensor, "N d"]) -> tuple[Features, Tensor, Tensor]:
    """[1, z] of standardized columns: the features, the means and the spreads."""
    x = x.double()
    mean, spread = x.mean(0), x.std(0, unbiased=False)
    spread = torch.where(spread > 1e-9, spread, torch.ones_like(spread))

    def features(y: Tensor) -> Tensor:
        z = (y.double() - mean) / spread
        return torch.cat([torch.ones_like(z[..., :1]), z], -1)

    return features, mean, spread


def taken(phi: Float[Tensor, "N k"], weight: Float[Tensor, "N A"]) -> Float[Tensor, "N Ak"]:
    """phi of each action, weighted: the features of a discrete action, or of a policy."""
    return (weight[..., None] * phi[:, None, :]).flatten(1)


@dataclass(frozen=True)
class ActionValues:
    """What actions are worth: `q(obs)` [N, A] for discrete actions, `q(obs, action)` [N] for
    continuous ones, and `value(obs)` [N] of the policy that was evaluated."""

    features: Features
    theta: Tensor
    choose: Chooser
    actions: int

    def q(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        """The worth of every discrete action, or of the given continuous ones."""
        if self.actions:
            return self.features(obs) @ self.theta.view(self.actions, -1).T
        assert action is not None
        return self.features(torch.cat([obs.double(), action.double()], -1)) @ self.theta

    def value(self, obs: Float[Tensor, "N d"]) -> Float[Tensor, "N"]:
        """The worth of what the policy does."""
        chosen = self.choose(obs)
        if self.actions:
            return (chosen.double() * self.q(obs)).sum(-1)
        return self.q(obs, chosen)


def evaluate_actions(
    now: Float[Tensor, "N k"], after: Float[Tensor, "N k"], reward: Float[Tensor, "N"],
    goes_on: Float[Tensor, "N"], gamma: float, ridge: float, rounds: int,
) -> Float[Tensor, "k"]:  # fmt: skip
    """The fixed point of ridge regression, on features now and one step later (under the policy).

    Without bounds every round is linear in theta, so it needs no pass over the rows; where that
    leaves the range of possible values (by a tenth), the rounds are made on rows, targets clipped.
    """
    gram = now.T @ now
    scale = ridge * float(gram.diagonal().mean())
    factor = torch.linalg.cholesky(gram + scale * torch.eye(gram.shape[0], dtype=gram.dtype))
    start = torch.cholesky_solve((now.T @ reward)[:, None], factor)
    move = gamma * torch.cholesky_solve(now.T @ (goes_on[:, None] * after), factor)
    low, high = (float(x) / (1.0 - gamma) for x in (reward.min(), reward.max()))
    low, high = min(low, 0.0), max(high, 0.0)
    theta = start
    for _ in range(rounds):
        theta, before = start + move @ theta, theta
        if not bool(theta.isfinite().all()) or _moved(theta, before) < 1e-6:
            break
    found = after @ theta[:, 0]
    slack = 0.1 * (high - low)
    if bool(((found >= low - slack) & (found <= high + slack)).all()):
        return theta[:, 0]
    theta = torch.zeros_like(start)
    for _ in range(min(rounds, 100)):
        y = reward + gamma * goes_on * (after @ theta[:, 0]).clamp(low, high)
        theta, before = torch.cholesky_solve((now.T @ y)[:, None], factor), theta
        if _moved(theta, before) < 1e-3:
            break
    return theta[:, 0]


def _moved(new: Tensor, old: Tensor) -> float:
    return float((new - old).abs().max()) / (1.0 + float(old.abs().max()))


def fit_values(
    log: Transitions,
    choose: Chooser,
    *,
    actions: int = 0,
    gamma: float = 0.99,
    features: Fourier | None = Fourier(150, 3.0),
    ridge: float = 1e-4,
    rounds: int = 300,
) -> ActionValues:
    """Fit what a policy's actions are worth.

    Args:
        log: steps. choose: the policy: its actions, or their probabilities where `actions` > 0.
        actions: how many discrete actions; 0 where they are continuous.
        features: random features beside the standardized columns; None for those alone.
        ridge: penalty, in units of the Gram matrix's mean diagonal. rounds: at most.
    """
    if len(log.reward) > _MOST_ROWS:
        log = log[torch.linspace(0, len(log.reward) - 1, _MOST_ROWS).long()]
    rows = len(log.reward)
    obs, then = log.obs.reshape(rows, -1), log.next_obs.reshape(rows, -1)
    reward, goes_on = log.reward.double(), 1.0 - log.terminated.double()
    if actions:
        made = linear(obs)[0] if features is None else features.of(obs.double())
        once = torch.nn.functional.one_hot(log.action.long(), actions).double()
        now, after = taken(made(obs), once), taken(made(then), choose(then).double())
    else:
        action = log.action.reshape(rows, -1)
        both = torch.cat([obs.double(), action.double()], 1)
        made = linear(both)[0] if features is None else features.of(both)
        now = made(both)
        after = made(torch.cat([then.double(), choose(then).double()], 1))
    theta = evaluate_actions(now, after, reward, goes_on, gamma, ridge, rounds)
    return ActionValues(made, theta, choose, actions)
