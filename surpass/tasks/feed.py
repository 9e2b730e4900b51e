"""A feed with advertisements: how many to show per fetch, to people who tire of them
differently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.data.records import About, Decisions

__all__ = ["Feed", "Sessions"]

LEVELS, LONGEST = 4, 20
Act = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sessions:
    """What a policy came to, per session: fetches, and revenue."""

    fetches: float
    revenue: float


@dataclass(frozen=True)
class Feed:
    """Sessions of fetches; at each, 0 to 3 advertisements.

    A person stays for another fetch with probability
    sigmoid(2.6 - 0.12 depth - tire ads - 0.1 shown), with `tire` 0.1 for the tolerant (a share
    `tolerant`) and 0.9 for the others (0.55 for all where `same`); revenue per advertisement is
    0.75^k of the first, k its position, with noise. The context is a noisy sign of tolerance,
    depth, advertisements shown lately, and a column that means nothing.
    """

    tolerant: float = 0.4
    same: bool = False
    noise: float = 0.3

    def tire(self, kind: Tensor) -> Tensor:
        """How much an advertisement drives away, by kind of person."""
        if self.same:
            return torch.full(kind.shape, 0.55, dtype=torch.float64)
        return torch.where(kind > 0, 0.1, 0.9).double()

    def staying(self, kind: Tensor, depth: Tensor, shown: Tensor, ads: Tensor) -> Tensor:
        """The chance of another fetch."""
        return torch.sigmoid(2.6 - 0.12 * depth - self.tire(kind) * ads - 0.1 * shown)

    @staticmethod
    def earned(ads: Tensor) -> Tensor:
        """Expected revenue of so many advertisements."""
        return (1 - 0.75 ** ads.double()) / (1 - 0.75)

    def run(
        self, act: Act, sessions: int, rng: np.random.Generator
    ) -> tuple[dict[str, Float[Tensor, "n"]], Sessions]:
        """All fetches of some sessions of a policy: contexts [n, 4] to probabilities [n, 4]."""
        kind = torch.from_numpy((rng.random(sessions) < self.tolerant).astype(np.float64))
        sign = 2 * kind - 1 + torch.from_numpy(0.7 * rng.normal(size=sessions))
        shown = torch.zeros(sessions, dtype=torch.float64)
        alive = torch.arange(sessions)
        rows: dict[str, list[Tensor]] = {}
        for depth in range(LONGEST):
            d = torch.full((len(alive),), float(depth), dtype=torch.float64)
            noise = torch.from_numpy(rng.normal(size=len(alive)))
            context = torch.stack((sign[alive], d / 5, shown[alive] / 3, noise), 1)
            pi = act(context).to(torch.float64)
            u = torch.from_numpy(rng.random((len(alive), 1)))
            a = (u >= pi.cumsum(1)).sum(1).clamp_max(LEVELS - 1)
            stay = self.staying(kind[alive], d, shown[alive], a)
            stays = torch.from_numpy(rng.random(len(alive))) < stay
            paid = self.earned(a) * (
                1 + self.noise * torch.from_numpy(rng.normal(size=len(alive)))
            )  # fmt: skip
            row = {
                "context": context, "action": a, "left": (~stays).double(), "revenue": paid,
                "propensity": pi.gather(1, a[:, None])[:, 0], "kind": kind[alive],
                "depth": d, "shown": shown[alive],
            }  # fmt: skip
            for name, value in row.items():
                rows.setdefault(name, []).append(value)
            shown[alive] = 0.5 * shown[alive] + a.double()
            alive = alive[stays]
        columns = {name: torch.cat(values) for name, values in rows.items()}
        total = len(columns["action"]) / sessions, float(columns["revenue"].sum()) / sessions
        return columns, Sessions(*total)

    def log(self, rows: int, rng: np.random.Generator) -> tuple[Decisions, dict[str, Tensor]]:
        """Fetches of uniformly random levels: reward is revenue, cost is that the person left. The
        second gives, per fetch, what every level would have earned and cost on average."""
        columns, _ = self.run(lambda x: x.new_full((len(x), LEVELS), 1 / LEVELS), rows // 3, rng)
        pick = torch.from_numpy(rng.permutation(len(columns["action"]))[:rows])
        c = {name: column[pick] for name, column in columns.items()}
        n, levels = len(pick), torch.arange(LEVELS)
        every = [self.staying(c["kind"], c["depth"], c["shown"], a.expand(n)) for a in levels]
        truth = {"revenue": self.earned(levels).expand(n, -1), "left": 1 - torch.stack(every, 1)}
        log = Decisions(
            context=c["context"], action=c["action"], reward=c["revenue"], cost=c["left"],
            propensity=c["propensity"],
            propensities=torch.full((n, LEVELS), 1 / LEVELS, dtype=torch.float64),
            batch_size=[n],  # type: ignore[call-arg]
        ).described(About(name="feed", actions=("0", "1", "2", "3")))  # fmt: skip
        return log, truth
