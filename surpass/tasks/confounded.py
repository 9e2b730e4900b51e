"""Chains whose logged actions share a cause with their outcome that nobody recorded, and an
instrument."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import About, Sequences
from surpass.tasks.tabular import TabularMDP

__all__ = ["ConfoundedChain"]


@dataclass(frozen=True)
class ConfoundedChain:
    """Two states, a hidden coin u at every step, a binary instrument z and action a.

    P(Z=1|s) = .3 + .4 s; P(A=1|s,z,u) = .1 + .1 s + `strength` z + .35 u; P(R=1) = .05 + .2 a +
    .6 u + .1 s; P(S'=1) = .1 + .2 a + .55 u + .1 s. Action and hidden cause add up, which is what
    identification through the instrument asks for; with `logistic` rewards they do not.
    """

    strength: float = 0.4
    logistic: bool = False
    gamma: float = 0.9

    def reward(self, s: Tensor, a: Tensor, u: Tensor) -> Tensor:
        """P(R = 1)."""
        if self.logistic:
            return torch.sigmoid(-2.0 + 1.5 * a + 2.5 * u + 0.5 * s)
        return 0.05 + 0.2 * a + 0.6 * u + 0.1 * s

    def exact(self) -> TabularMDP:
        """The problem of a policy whose actions do not depend on u."""
        s, a, u = torch.meshgrid(*[torch.arange(2, dtype=torch.float64)] * 3, indexing="ij")
        up = (0.1 + 0.2 * a + 0.55 * u + 0.1 * s).mean(-1)
        start = torch.tensor([0.5, 0.5], dtype=torch.float64)
        return TabularMDP(
            torch.stack((1 - up, up), -1), self.reward(s, a, u).mean(-1), start, self.gamma
        )

    def episodes(self, n: int, steps: int, generator: torch.Generator) -> Sequences:
        """n logged episodes; the instrument is in `extras`, the hidden coin is not logged.
        `behavior_logp` is the marginal P(a|s), which is what one would fit."""

        def coin(p: Tensor) -> Tensor:
            return (torch.rand(n, generator=generator, dtype=torch.float64) < p).double()

        s = coin(torch.tensor(0.5))
        rows: dict[str, list[Tensor]] = {}
        for _ in range(steps):
            u, z = coin(torch.tensor(0.5)), coin(0.3 + 0.4 * s)
            a = coin(0.1 + 0.1 * s + self.strength * z + 0.35 * u)
            p = 0.1 + 0.1 * s + self.strength * (0.3 + 0.4 * s) + 0.175
            r, s2 = coin(self.reward(s, a, u)), coin(0.1 + 0.2 * a + 0.55 * u + 0.1 * s)
            logp = torch.where(a > 0, p, 1 - p).log()
            for name, value in {"s": s, "z": z, "a": a, "r": r, "s2": s2, "logp": logp}.items():
                rows.setdefault(name, []).append(value)
            s = s2
        c = {name: torch.stack(values, 1) for name, values in rows.items()}
        eye = torch.eye(2, dtype=torch.float64)
        return Sequences(
            action=c["a"].long(), mask=torch.ones_like(c["a"]), reward=c["r"],
            behavior_logp=c["logp"], obs=eye[c["s"].long()], next_obs=eye[c["s2"].long()],
            extras=TensorDict({"instrument": c["z"].long()}, batch_size=[n, steps]),
            batch_size=[n],  # type: ignore[call-arg]
        ).described(About(name="confounded chain", actions=("0", "1")))  # fmt: skip
