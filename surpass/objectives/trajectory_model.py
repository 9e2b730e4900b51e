"""Whole segments of episodes as one point: what a diffusion model of trajectories learns, and how
its samples are pushed toward a policy.

A segment of L steps is [obs, artanh(action), reward, terminated] of every step, each entry
standardized by the log, flattened to [L (d + k + 2)]. Policy-Guided Diffusion (2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.denoising import Predict, edm_denoiser, edm_levels, edm_loss, edm_sample
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["Layout", "guide_strength", "guided_segments", "trajectory_loss"]

_EDGE = 0.995
LogProb = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Layout:
    """Where the entries of a step stand, and how they are standardized.

    Attributes:
        obs_dim, size: of an observation and an action. mean, std: of a step's entries, [d + k + 2].
    """

    obs_dim: int
    size: int
    mean: Float[Tensor, "f"]
    std: Float[Tensor, "f"]

    @staticmethod
    def entries(columns: Mapping[str, Tensor]) -> Float[Tensor, "... f"]:
        """A step's entries from `obs, action, reward, terminated`, actions in [-1, 1]."""
        action = torch.atanh(columns["action"].clamp(-_EDGE, _EDGE))
        scalar = [columns[name].float()[..., None] for name in ("reward", "terminated")]
        return torch.cat([columns["obs"], action, *scalar], -1)

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> Layout:
        """Standardized by whole columns of a log; an entry that never changes there (deviation 0)
        is
        0 in every point, and never changes in what is made."""
        entries = cls.entries(columns)
        std = entries.std(0)
        sizes = columns["obs"].shape[-1], columns["action"].shape[-1]
        return cls(*sizes, entries.mean(0), torch.where(std > 1e-4, std, 0.0))

    def flat(self, columns: Mapping[str, Tensor]) -> Float[Tensor, "B Lf"]:
        """Segments as points."""
        scale = torch.where(self.std > 0, self.std, 1.0)
        moves = (self.std > 0).float()
        return (moves * (self.entries(columns) - self.mean) / scale).flatten(-2)

    def steps(self, x: Float[Tensor, "B Lf"]) -> Float[Tensor, "B L f"]:
        """Points as segments, entries in their own units (actions before the tanh)."""
        return x.unflatten(-1, (-1, len(self.mean))) * self.std + self.mean

    def columns(self, x: Float[Tensor, "B Lf"]) -> dict[str, Tensor]:
        """Points as columns [B, L, ...]."""
        d, k, steps = self.obs_dim, self.size, self.steps(x)
        return {
            "obs": steps[..., :d], "action": torch.tanh(steps[..., d : d + k]),
            "reward": steps[..., d + k], "terminated": steps[..., d + k + 1] > 0.5,
        }  # fmt: skip


@part
def trajectory_loss(nets: Nets, rows: Rows, /, denoiser: str = "denoiser") -> Float[Tensor, "B"]:
    """The EDM loss of the batch's segments, per entry."""
    x = Layout.of(rows.log).flat(rows.columns)
    return edm_loss(edm_denoiser(nets[denoiser]), x) / x.shape[-1]


def guide_strength(i: int, steps: int, weight: float) -> float:
    """lambda_i = weight (1 - i / N + 0.3 sin(pi (i + 1) / N)): strong at first, then fading."""
    return weight * (1.0 - i / steps + 0.3 * math.sin(math.pi * (i + 1) / steps))


def guided_segments(
    net: Predict, layout: Layout, count: int, length: int, logp: LogProb | None = None,
    weight: float = 1.0, steps: int = 64, churn: float = 80.0,
) -> Float[Tensor, "count Lf"]:  # fmt: skip
    """Segments of the model, their actions pushed toward a policy at every step of the sampler.

    Before step i the action entries move by lambda_i g / |g|, g the gradient of
    sum_t log pi(a_t | s_t); states are not pushed, they follow by the model. Without `logp` the
    samples are of the behavior.

    Args:
        logp: log pi(action | obs), [M, d] and [M, k] to [M], differentiable in the action.
    """
    f, d, k = len(layout.mean), layout.obs_dim, layout.size

    def guide(x: Tensor, i: int) -> Tensor:
        assert logp is not None
        with torch.enable_grad():
            moving = x.detach().requires_grad_()
            here = layout.steps(moving)
            obs, action = here[..., :d].detach(), torch.tanh(here[..., d : d + k])
            total = logp(obs.flatten(0, 1), action.flatten(0, 1)).sum()
            (slope,) = torch.autograd.grad(total, moving)
        slope = slope / slope.norm(dim=-1, keepdim=True).clamp(min=1e-8)
        return x + guide_strength(i, steps, weight) * slope

    x = torch.randn(count, length * f, device=layout.mean.device)
    use = None if logp is None or weight == 0 else guide
    return edm_sample(edm_denoiser(net), x, edm_levels(steps), churn, guide=use)
