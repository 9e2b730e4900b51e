"""Pessimism with what related tasks share: a hierarchical Gaussian reward model and its lower
bound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.critics.deviations import Standardizer
from surpass.critics.hierarchical import HierarchicalGaussian
from surpass.methods.decisions.candidate import Learner, LearningRows
from surpass.methods.decisions.seeking import RewardSeeking
from surpass.policies.action_values import ActionValues
from surpass.policies.tilted import policy_class
from surpass.registry import system

__all__ = ["HierarchicalRewards", "LowerBounds", "hier_opo"]


@policy_class
class LowerBounds(ActionValues):
    """mean_a' phi - alpha |root_a' phi|, phi = [1, z]: a lower confidence bound per action."""

    location: Tensor
    scale: Tensor
    mean: Tensor
    root: Tensor

    def __init__(self, n_inputs: int, n_actions: int, alpha: float = 0.1) -> None:
        super().__init__()
        self.n_inputs, self.n_actions, self.alpha = n_inputs, n_actions, float(alpha)
        self.config = {"n_inputs": n_inputs, "n_actions": n_actions, "alpha": self.alpha}
        k = n_inputs + 1
        self.register_buffer("location", torch.zeros(n_inputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_inputs, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(n_actions, k, dtype=torch.float64))
        self.register_buffer("root", torch.zeros(k, n_actions * k, dtype=torch.float64))

    def forward(self, context: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        z = (context.to(torch.float64) - self.location) / self.scale
        phi = torch.cat((torch.ones_like(z[:, :1]), z), 1)
        spread = (phi @ self.root).view(-1, self.n_actions, self.n_inputs + 1)
        return phi @ self.mean.T - self.alpha * spread.square().sum(-1).sqrt()


@dataclass(frozen=True)
class HierarchicalRewards:
    """Every action's linear reward is a task: parameters around a shared mean that all rows teach.

    Attributes:
        alpha: spreads below the mean. within, between: variances of the parameters, in units of the
            reward's variance.
    """

    alpha: float = 0.1
    within: float = 0.05
    between: float = 0.25

    def fit(self, rows: LearningRows) -> ActionValues:
        """In closed form; the noise is the spread of the rewards."""
        noise = float(rows.reward.std().clamp_min(1e-6))
        standard = Standardizer.of(rows.context)
        center = float(rows.reward.mean())
        found = HierarchicalGaussian(
            self.between * noise**2, self.within * noise**2, noise
        ).fit(
            standard.features(rows.context), rows.reward - center, rows.action, rows.n_actions
        )  # fmt: skip
        out = LowerBounds(rows.context.shape[1], rows.n_actions, self.alpha)
        out.location, out.scale = standard.mean, standard.spread
        mean = found.mean.clone()
        mean[:, 0] += center
        out.mean = mean
        root = torch.linalg.cholesky(found.covariance)  # |root' phi|^2 = phi' covariance phi
        out.root = root.permute(1, 0, 2).flatten(1).contiguous()
        return out


@system("hier-opo")
def hier_opo(alpha: float = 0.1, within: float = 0.05, between: float = 0.25) -> Learner:
    """Follow the lower confidence bound of a hierarchical Gaussian reward model."""
    return RewardSeeking("hier-opo", HierarchicalRewards(alpha, within, between))
