"""Pessimism about rewards alone: few of them were labeled, the transitions are many."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from surpass.critics.deviations import Standardizer
from surpass.critics.ensembles import critic
from surpass.forms import Learner, adam, train
from surpass.methods.decisions.candidate import Learner as Candidates
from surpass.methods.decisions.candidate import LearningRows
from surpass.methods.decisions.hierarchical import LowerBounds
from surpass.methods.decisions.seeking import RewardSeeking
from surpass.methods.offline.implicit import iql
from surpass.objectives.reward_bounds import observed_rewards, reward_lower_bound
from surpass.policies.action_values import ActionValues
from surpass.registry import system

__all__ = ["PessimisticRewards", "semi_pessimistic", "semi_pessimistic_decisions"]


@dataclass(frozen=True)
class PessimisticRewards:
    """A ridge regression per action and beta of its standard errors below it:
    phi' theta_a - beta sd sqrt(phi' (Phi_a' Phi_a + ridge)^-1 phi).

    Rows whose reward is NaN are not labeled and teach nothing.
    """

    beta: float = 1.0
    ridge: float = 1.0

    def fit(self, rows: LearningRows) -> ActionValues:
        """In closed form, on standardized columns and centered rewards."""
        known = ~rows.reward.isnan()
        standard = Standardizer.of(rows.context)
        phi, action = standard.features(rows.context)[known], rows.action[known]
        reward = rows.reward[known].to(torch.float64)
        center, noise = reward.mean(), reward.std().clamp_min(1e-6)
        once = torch.nn.functional.one_hot(action, rows.n_actions).to(phi.dtype)
        left = torch.einsum("na,ni,nj->aij", once, phi, phi)
        left = left + self.ridge * torch.eye(phi.shape[1], dtype=phi.dtype)
        right = torch.einsum("na,ni,n->ai", once, phi, reward - center)
        out = LowerBounds(rows.context.shape[1], rows.n_actions, self.beta)
        out.location, out.scale = standard.mean, standard.spread
        mean = torch.linalg.solve(left, right)
        mean[:, 0] += center
        out.mean = mean
        root = torch.linalg.cholesky(noise.square() * torch.linalg.inv(left))
        out.root = root.permute(1, 0, 2).flatten(1).contiguous()
        return out


def semi_pessimistic_decisions(beta: float = 1.0, ridge: float = 1.0) -> Candidates:
    """The same idea where an episode is one decision: follow the reward's lower bound."""
    return RewardSeeking("semi-pessimistic", PessimisticRewards(beta, ridge))


@system("semi-pessimistic")
def semi_pessimistic(
    kappa: float = 1.0, members: int = 5, tau: float = 0.7, temperature: float = 3.0,
    gamma: float = 0.99, lr: float = 3e-4, batch: int = 256, keep_observed: bool = False,
) -> Learner:  # fmt: skip
    """IQL on all transitions with r = mean - kappa sd of a reward ensemble, fitted where
    `extras["labeled"]` is 1 (everywhere where the log has no such column)."""
    plain = iql(tau, temperature, gamma, lr=lr, batch=batch)
    return replace(
        plain,
        nets={"reward": critic(members), **plain.nets},
        update=(train("reward", observed_rewards(), adam(lr)), *plain.update),
        prepare=(reward_lower_bound(kappa, keep_observed),),
    )
