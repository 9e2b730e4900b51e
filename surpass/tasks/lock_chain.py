"""A combination lock of a few steps, seen through noise, that pays at the end: one number, or a
ring in the plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import About, Sequences

__all__ = ["CombinationLock"]


@dataclass(frozen=True)
class CombinationLock:
    """Two latent states; action 0 keeps the good one, action 1 loses it for good.

    Observations are one-hot latent and step, with noise 0.1. At the end the reward is
    N(1 - 2 latent, 0.1^2), and the vector in `extras["rewards"]` is on a ring of radius 2 where the
    latent is good, near 0 where it is not.
    """

    horizon: int = 6
    behavior: float = 0.8  # the chance of action 0 in the log

    def episodes(self, n: int, good: float, generator: torch.Generator) -> Sequences:
        """n episodes of a policy that takes action 0 with probability `good`."""
        lost = torch.zeros(n, dtype=torch.long)
        H, eye2, eyeH = self.horizon, torch.eye(2), torch.eye(self.horizon)
        obs, actions, reward = [], [], torch.zeros(n, H)
        for h in range(H):
            clean = torch.cat((eye2[lost], eyeH[h].expand(n, -1)), 1)
            obs.append(clean + 0.1 * torch.randn(clean.shape, generator=generator))
            action = (torch.rand(n, generator=generator) >= good).long()
            lost = torch.maximum(lost, action)
            actions.append(action)
        reward[:, -1] = 1 - 2 * lost + 0.1 * torch.randn(n, generator=generator)
        vector = torch.zeros(n, H, 2)
        vector[:, -1] = self._ring(lost, generator)
        a = torch.stack(actions, 1)
        chance = torch.where(a == 0, good, 1 - good)
        return Sequences(
            action=a, mask=torch.ones(n, H), reward=reward, behavior_logp=chance.log(),
            obs=torch.stack(obs, 1),
            extras=TensorDict({"rewards": vector}, batch_size=[n, H]),
            batch_size=[n],  # type: ignore[call-arg]
        ).described(About(name="combination lock", actions=("0", "1")))  # fmt: skip

    def log(self, n: int, generator: torch.Generator) -> Sequences:
        """n logged episodes."""
        return self.episodes(n, self.behavior, generator)

    def kept(self, good: float) -> float:
        """The chance that the good latent survives."""
        return good**self.horizon

    def _ring(self, lost: Tensor, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        r = 0.05**0.5 * torch.randn(len(lost), 2, generator=generator)
        radius = 2.0 * (1 - lost.float())[:, None]
        return r + radius * r / r.norm(dim=1, keepdim=True).clamp_min(1e-6)
