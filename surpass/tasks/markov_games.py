"""Games of several players, each with a reward of its own: tables with exact equilibrium gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.equilibrium_gap import CountedGame, Equilibrium, deviations
from surpass.tasks.tabular import TabularMDP, draw

__all__ = ["MarkovGame", "counted_game", "matrix_game", "random_zero_sum"]


@dataclass(frozen=True, eq=False)
class MarkovGame:
    """A discounted game of m players who move at once.

    Attributes:
        P: [S, J, S'], J all joint actions, the last player's changing fastest.
        r: [m, S, J], each player's reward.
        d0: [S]. gamma: discount, below 1. sizes: how many actions each player has.

    Raises:
        InputError: when shapes do not fit.
    """

    P: Tensor
    r: Tensor
    d0: Tensor
    gamma: float
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("P", "r", "d0"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).double())
        S, J = self.P.shape[:2]
        if math.prod(self.sizes) != J or tuple(self.r.shape) != (len(self.sizes), S, J):
            raise InputError(
                f"players of {self.sizes} actions in {S} states have rewards "
                f"[{len(self.sizes)}, {S}, {math.prod(self.sizes)}] and as many joint actions; got "
                f"{tuple(self.r.shape)} and {J}"
            )
        TabularMDP(self.P, self.r[0], self.d0, self.gamma)  # checks the rest

    @property
    def players(self) -> int:
        """m."""
        return len(self.sizes)

    def values(self, pi: Float[Tensor, "S J"]) -> Float[Tensor, "m"]:
        """What a joint policy is worth to each player."""
        return torch.stack(
            [TabularMDP(self.P, r, self.d0, self.gamma).evaluate(pi).value for r in self.r]
        )

    def gap(self, pi: Float[Tensor, "S J"], kind: Equilibrium = "nash") -> float:
        """The most that any player gains by leaving the joint policy, exactly.

        In a correlated equilibrium a player may swap what it is told, in the others it may only
        ignore it. A joint policy that is no product of the players' has no Nash gap; the coarse
        one is given then.
        """
        gains = []
        for i, held in enumerate(self.values(pi)):
            options = torch.stack(list(deviations(pi, self.sizes, i, kind)), 1)  # [S, O, J]
            P = torch.einsum("soj,sjt->sot", options, self.P)
            r = torch.einsum("soj,sj->so", options, self.r[i])
            best = TabularMDP(P, r, self.d0, self.gamma).solve()
            gains.append(float(best.value - held))
        return max(gains)

    def log(
        self, behavior: Float[Tensor, "S J"], n: int, generator: torch.Generator,
        noise: float = 0.0,
    ) -> CountedGame:  # fmt: skip
        """n tuples, states drawn evenly and joint actions from `behavior`, as counts; rewards with
        Gaussian noise."""
        S, J = self.P.shape[:2]
        s = torch.randint(S, (n,), generator=generator)
        a = draw(behavior[s], generator)
        s2 = draw(self.P[s, a], generator)
        paid = self.r[:, s, a]
        paid = paid + noise * torch.randn(paid.shape, generator=generator, dtype=torch.float64)
        return counted_game(s, a, s2, paid, self)


def counted_game(
    s: Tensor, a: Tensor, s2: Tensor, paid: Float[Tensor, "m N"], like: MarkovGame
) -> CountedGame:
    """The model of logged tuples; what was never seen stays and earns nothing. Starts, discount and
    players are those of `like`."""
    S, J = like.P.shape[:2]
    at = s * J + a
    n = torch.bincount(at, minlength=S * J).double()
    hits = torch.bincount(at * S + s2, minlength=S * J * S).double().reshape(S, J, S)
    stay = torch.eye(S, dtype=torch.float64)[:, None].expand(S, J, S)
    P = torch.where(n.reshape(S, J, 1) > 0, hits / n.reshape(S, J, 1).clamp_min(1), stay)
    r = torch.zeros(like.players, S * J, dtype=torch.float64).index_add(1, at, paid.double())
    r = (r / n.clamp_min(1)).reshape(-1, S, J)
    return CountedGame(P, r, n.reshape(S, J), like.d0, like.gamma, like.sizes)


def matrix_game(payoffs: Float[Tensor, "m *sizes"], gamma: float = 0.0) -> MarkovGame:
    """One decision: payoffs of every player for every joint action."""
    m, *sizes = payoffs.shape
    r = torch.as_tensor(payoffs).double().reshape(m, 1, -1)
    return MarkovGame(torch.ones(1, r.shape[-1], 1), r, torch.ones(1), gamma, tuple(sizes))


def random_zero_sum(
    states: int = 4, actions: int = 3, gamma: float = 0.8,
    generator: torch.Generator | None = None,
) -> MarkovGame:  # fmt: skip
    """Two players of as many actions; what one gains, in [0, 1], the other lacks of 1."""
    f64 = torch.float64
    P = torch.rand(states, actions**2, states, generator=generator, dtype=f64) ** 3
    r = torch.rand(states, actions**2, generator=generator, dtype=f64)
    even = torch.full((states,), 1 / states, dtype=f64)
    P = P / P.sum(-1, keepdim=True)
    return MarkovGame(P, torch.stack([r, 1 - r]), even, gamma, (actions, actions))
