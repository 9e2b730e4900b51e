"""Control of diffusions that stop when they leave a domain, or when their controller is done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["ExitControl", "ShareRepurchase"]


def _normal(uniform: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.special.ndtri(uniform.to(dtype).clamp(1e-6, 1 - 1e-6))


@dataclass(frozen=True)
class ExitControl:
    """dX = a dt + dW from 0 until it leaves (-1, 1), at a cost of a^2 / 2 + `toll` a unit of time.

    Euler steps of `dt`. With `bridge`, a path may leave unseen within a step, with the probability
    of a Brownian bridge, exp(-2 (1 - x) (1 - x') / dt) at the upper end; without it steps are too
    few to see it, and costs come out too high.

    Attributes:
        toll, dt, bridge: as above. most: of actions, either way. horizon: steps until cut.
    """

    toll: float = 2.0
    dt: float = 0.02
    bridge: bool = True
    most: float = 5.0
    horizon: int = 400
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=2, init=False)

    @property
    def spaces(self) -> Spaces:
        """The place, and the push."""
        return Spaces(1, action_dim=1, low=(-self.most,), high=(self.most,), horizon=self.horizon)

    @property
    def best(self) -> float:
        """The least expected cost in continuous time, log cosh sqrt(2 toll); 0 control costs
        `toll`."""
        return math.log(math.cosh(math.sqrt(2 * self.toll)))

    def optimum(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The best push, sqrt(2 toll) tanh(sqrt(2 toll) x)."""
        k = math.sqrt(2 * self.toll)
        return k * torch.tanh(k * x)

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """All at 0."""
        device = generator.device if generator is not None else None
        x = torch.zeros(n, 1, dtype=self.dtype, device=device)
        return {"x": x, "t": torch.zeros(n, dtype=torch.long, device=device)}, x

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One Euler step, and whether the path left in it."""
        assert noise is not None, "a diffusion needs noise"
        a, x = action.clamp(-self.most, self.most), state["x"]
        after = x + a * self.dt + math.sqrt(self.dt) * _normal(noise[:, :1], self.dtype)
        out = after.abs()[:, 0] >= 1
        if self.bridge:
            unseen = sum(
                torch.exp(-2 * (1 - s * x) * (1 - s * after).clamp_min(0) / self.dt)
                for s in (1.0, -1.0)
            )
            out = out | (noise[:, 1] < unseen[:, 0])  # type: ignore[index]
        cost = (0.5 * a.square()[:, 0] + self.toll) * self.dt
        t = state["t"] + 1
        return Step({"x": after, "t": t}, after, -cost, out, (t >= self.horizon) & ~out)


@dataclass(frozen=True)
class ShareRepurchase:
    """A bank buys one unit of shares for a company within `days`, and is paid their mean price up
    to the day it is done: it gains the mean price less what it paid, in percent of the first price.

    A day's purchase a, in units, costs a (S (1 + fee) + impact a days); what is missing at the end
    is bought at once, at `penalty` more. It sees the share of days gone, (S - mean) / S_0 and
    S / S_0 - 1 (in units of a standard deviation over all days), and what it has. Reconstructed:
    the paper's contract is of this kind.

    Attributes:
        days: at most. volatility: of a day. most: times the even pace that it may buy a day.
        fee, impact, penalty: as above.
    """

    days: int = 60
    volatility: float = 0.01
    most: float = 4.0
    fee: float = 0.0
    impact: float = 0.0
    penalty: float = 0.02
    dtype: torch.dtype = torch.float32
    noise_dim: int = field(default=1, init=False)

    @property
    def spaces(self) -> Spaces:
        """What it sees, and how fast it buys: -1 nothing, 1 the most, -1 + 2 / most the even
        pace."""
        return Spaces(4, action_dim=1, horizon=self.days + 1)

    @property
    def even(self) -> float:
        """The action of the even pace."""
        return -1.0 + 2.0 / self.most

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """The first day, at a price of 1."""
        device = generator.device if generator is not None else None
        one = torch.ones(n, dtype=self.dtype, device=device)
        state = {"price": one, "mean": one, "held": 0 * one, "paid": 0 * one, "t": 0 * one.long()}
        return state, self._seen(state)

    def _seen(self, s: State) -> Float[Tensor, "n 4"]:
        wide = self.volatility * math.sqrt(self.days)
        columns = (
            s["t"] / self.days, (s["price"] - s["mean"]) / wide, (s["price"] - 1) / wide, s["held"],
        )  # fmt: skip
        return torch.stack([c.to(self.dtype) for c in columns], -1)

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """A day: buy at today's price, which enters the mean, then the price moves."""
        assert noise is not None, "prices need noise"
        t, price = state["t"] + 1, state["price"]
        pace = 0.5 * (action.clamp(-1, 1)[:, 0] + 1) * self.most / self.days
        bought = torch.minimum(pace, 1 - state["held"])
        mean = state["mean"] + (price - state["mean"]) / t
        paid = state["paid"] + bought * (price * (1 + self.fee) + self.impact * bought * self.days)
        held = state["held"] + bought
        last = t >= self.days
        missing = torch.where(last, 1 - held, torch.zeros_like(held))
        paid = paid + missing * price * (1 + self.fee + self.penalty)
        done = (held >= 1 - 1e-6) | last
        gain = torch.where(done, 100 * (mean - paid), torch.zeros_like(mean))
        moved = price * torch.exp(self.volatility * _normal(noise[:, 0], self.dtype)
                                  - 0.5 * self.volatility**2)  # fmt: skip
        after = {"price": moved, "mean": mean, "held": held, "paid": paid, "t": t}
        return Step(after, self._seen(after), gain, done, torch.zeros_like(done))
