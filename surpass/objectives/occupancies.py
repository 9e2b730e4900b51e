"""The geometry of optimizing a stand-in reward: what matters of a reward is its part along the
differences of occupancies, and an angle between two such parts bounds how far they can disagree.

Goodhart's Law in Reinforcement Learning (2023).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["angle_between", "relevant", "worst_gain", "worst_reward"]


def relevant(
    reward: Float[Tensor, "S A"], P: Float[Tensor, "S A S"], gamma: float
) -> Float[Tensor, "S A"]:
    """The part of a reward that policies can tell apart: M R with M = I - B'(B B')^-1 B and
    B[s', (s, a)] = 1[s = s'] - gamma P(s'|s, a), the constraints that occupancies satisfy. What is
    dropped adds the same to every policy."""
    S, A = reward.shape
    eye = torch.eye(S, dtype=reward.dtype)
    B = (eye[:, None, :] - gamma * P).reshape(S * A, S).T
    flat = reward.reshape(-1)
    return (flat - B.T @ torch.linalg.solve(B @ B.T, B @ flat)).reshape(S, A)


def angle_between(a: Tensor, b: Tensor) -> float:
    """In radians."""
    cos = float((a * b).sum() / (a.norm() * b.norm()))
    return math.acos(min(max(cos, -1.0), 1.0))


def worst_gain(moved: Tensor, proxy: Tensor, angle: float) -> Tensor:
    """The least <D, R> over rewards of length 1 within `angle` of the proxy's direction u:

        |D| cos(min(pi, psi + angle)),  psi the angle between D and u,

    which is cos(angle) <D, u> - sin(angle) |D - <D, u> u| as long as psi + angle is at most pi.
    Concave in D. `proxy` is `relevant`, and D a difference of occupancies.
    """
    u = proxy / proxy.norm()
    along = (moved * u).sum()
    across = (moved - along * u).norm()
    psi = torch.atan2(across, along)
    return moved.norm() * torch.cos((psi + angle).clamp(max=math.pi))


def worst_reward(moved: Tensor, proxy: Tensor, angle: float) -> Tensor:
    """The reward that attains `worst_gain`, which is also its gradient in D; with D = 0 the proxy's
    direction."""
    u = proxy / proxy.norm()
    along = (moved * u).sum()
    across = moved - along * u
    if float(across.norm()) < 1e-12:
        return u
    psi = math.atan2(float(across.norm()), float(along))
    if psi + angle >= math.pi:
        return -moved / moved.norm()
    return math.cos(angle) * u - math.sin(angle) * across / across.norm()
