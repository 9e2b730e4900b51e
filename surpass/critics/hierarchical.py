"""Many related tasks under one hierarchical Gaussian model, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["HierarchicalGaussian", "TaskPosterior"]


@dataclass(frozen=True)
class TaskPosterior:
    """What is known of every task's parameters: `mean` [m, d] and `covariance` [m, d, d]."""

    mean: Float[Tensor, "m d"]
    covariance: Float[Tensor, "m d d"]

    def lower(
        self, features: Float[Tensor, "N A d"], task: Int[Tensor, "N"], alpha: float
    ) -> Float[Tensor, "N A"]:
        """phi' mean - alpha sqrt(phi' covariance phi), of every action in the context's task."""
        value = torch.einsum("nad,nd->na", features, self.mean[task])
        spread = torch.einsum("nad,nde,nae->na", features, self.covariance[task], features)
        return value - alpha * spread.clamp_min(0).sqrt()


@dataclass(frozen=True)
class HierarchicalGaussian:
    """mu ~ N(0, between I) shared by all tasks, theta_s ~ N(mu, within I),
    r = phi' theta_s + N(0, noise^2).

    With G_s = sum phi phi' / noise^2, B_s = sum phi r / noise^2, L = I / within and
    T_s = (L + G_s)^{-1}: the shared posterior has precision I / between + sum (L - L T_s L) and
    mean Sbar sum L T_s B_s; a task's has mean T_s (L mubar + B_s) and covariance
    T_s + T_s L Sbar L T_s. `pooled=False` learns every task alone (variance between + within).

    Hong, Kveton, Katariya, Zaheer and Ghavamzadeh, Multi-task off-policy learning from bandit
    feedback (2023).

    Attributes:
        between: variance of the shared parameters. within: of tasks around them. noise: sd of r.
    """

    between: float = 1.0
    within: float = 0.25
    noise: float = 0.5
    pooled: bool = True

    def fit(
        self,
        features: Float[Tensor, "N d"],
        reward: Float[Tensor, "N"],
        task: Int[Tensor, "N"],
        tasks: int | None = None,
        known: Float[Tensor, "d"] | None = None,
    ) -> TaskPosterior:
        """The exact posterior of every task, in O(m d^3).

        Args:
            features: of the logged action. tasks: their number. known: mu itself, where it is.
        """
        m, d = tasks or int(task.max()) + 1, features.shape[1]
        x, r = features.to(torch.float64), reward.to(torch.float64)
        outer = (x[:, :, None] * x[:, None, :]).flatten(1)
        G = x.new_zeros(m, d * d).index_add_(0, task, outer).view(m, d, d) / self.noise**2
        B = x.new_zeros(m, d).index_add_(0, task, x * r[:, None]) / self.noise**2
        eye = torch.eye(d, dtype=x.dtype)
        if not self.pooled:
            T = torch.linalg.inv(eye / (self.between + self.within) + G)
            return TaskPosterior((T @ B[..., None])[..., 0], T)
        L = eye / self.within
        T = torch.linalg.inv(L + G)
        if known is None:
            shared = torch.linalg.inv(eye / self.between + (L - L @ T @ L).sum(0))
            mean = shared @ (L @ T @ B[..., None])[..., 0].sum(0)
        else:
            shared, mean = torch.zeros_like(eye), known.to(x.dtype)
        task_mean = (T @ (L @ mean + B)[..., None])[..., 0]
        return TaskPosterior(task_mean, T + T @ L @ shared @ L @ T)
