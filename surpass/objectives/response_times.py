"""What a choice and the time it took say about how much one option is preferred.

Evidence drifts with v, the difference in utility, and unit noise until it meets +b or -b: that is
the choice x in {+1, -1}, and T is when. Then E[x] / E[T] = v / b, linear in v without saturation,
where choices alone see tanh(b v) only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.parts import part

__all__ = [
    "Timed", "bradley_terry", "drift_diffusion", "drift_likelihood", "log_exit_density",
    "solve_drift",
]  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """What a loss on timed comparisons sees, per comparison [B].

    Attributes:
        margin: v, the utility of the first option less that of the second.
        choice: +1 where the first was chosen, else -1.
        seconds: the time of the decision itself (what passes before and after it taken off).
    """

    margin: Float[Tensor, "B"]
    choice: Float[Tensor, "B"]
    seconds: Float[Tensor, "B"]


@part
def drift_diffusion(s: Timed, /, boundary: float = 1.0) -> Float[Tensor, "B"]:
    """T v^2 / (2 b) - x v: convex, and least in expectation at the true v, whatever the menus.

    Reconstructed from A general framework for estimating preferences using response time data
    (2025): the moment E[x - T m(v)] = 0 with m(v) = E[x|v] / E[T|v] = v / b, integrated in v.
    """
    return s.seconds * s.margin.square() / (2 * boundary) - s.choice * s.margin


@part
def bradley_terry(s: Timed, /, boundary: float = 1.0) -> Float[Tensor, "B"]:
    """-log sigmoid(2 b x v): what choices alone say under the same model.

    Bradley and Terry, Rank analysis of incomplete block designs (1952).
    """
    return -torch.nn.functional.logsigmoid(2 * boundary * s.choice * s.margin)


def solve_drift(
    features: Float[Tensor, "B d"], choice: Float[Tensor, "B"], seconds: Float[Tensor, "B"],
    boundary: float = 1.0, ridge: float = 1e-3,
) -> Float[Tensor, "d"]:  # fmt: skip
    """The theta that makes the mean of `drift_diffusion` least where v = features @ theta, in
    closed form: b (sum T phi phi' + ridge)^-1 sum x phi."""
    left = (features * seconds[:, None]).T @ features
    left += ridge * torch.eye(len(left), dtype=left.dtype)
    return boundary * torch.linalg.solve(left, features.T @ choice)


def log_exit_density(t: Float[Tensor, "..."], terms: int = 6) -> Float[Tensor, "..."]:
    """log of the density of when a Brownian motion from 0 first meets +1 or -1.

    Two series, each fast on its side of t = 0.6: images for short times, eigenfunctions for long
    ones (Feller, An introduction to probability theory and its applications II, 1971).
    """
    odd = 2 * torch.arange(terms, dtype=t.dtype) + 1
    sign = torch.where(torch.arange(terms) % 2 == 0, 1.0, -1.0).to(t.dtype)
    early, late = t.clamp(1e-12, 0.6)[..., None], t.clamp_min(0.6)[..., None]
    images = (sign * odd * torch.exp((1 - odd**2) / (2 * early))).sum(-1)
    first = images.log() - 1 / (2 * early[..., 0]) + math.log(2) - 0.5 * math.log(2 * math.pi)
    waves = (sign * odd * torch.exp((1 - odd**2) * math.pi**2 * late / 8)).sum(-1)
    second = waves.log() - math.pi**2 * late[..., 0] / 8 + math.log(math.pi / 2)
    return torch.where(t < 0.6, first - 1.5 * early[..., 0].log(), second)


@part
def drift_likelihood(s: Timed, /, boundary: float = 1.0) -> Float[Tensor, "B"]:
    """The log-density of choice and time together:
    x b v - v^2 T / 2 + log f(T / b^2) - log(2 b^2), f that of `log_exit_density`."""
    inside = s.seconds > 0
    seconds = torch.where(inside, s.seconds, torch.ones_like(s.seconds))
    said = boundary * s.choice * s.margin - s.margin.square() * seconds / 2
    said = said + log_exit_density(seconds / boundary**2) - math.log(2 * boundary**2)
    return torch.where(inside, said, torch.full_like(said, -math.inf))
