"""How far a joint policy is from an equilibrium, at most, as far as a log can tell.

With n(s, a) of N tuples seen, d the model's discounted occupancy (which sums to 1) and residuals u
of the Bellman equation with sum_{s, a} (n / N) u^2 <= beta, the value of a joint policy lies within

    (1 / (1 - gamma)) [sqrt(beta sum_{n > 0} d^2 N / n) + V_max sum_{n = 0} d]

of the model's, by Cauchy and Schwarz. The gap is then the best upper end of a deviation less the
lower end of what is held.

"Offline Learning in Markov Games with General Function Approximation" (2023). Its closed form for
tables, here, is a reconstruction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = [
    "Bounds", "CountedGame", "Equilibrium", "bounds", "deviations", "estimated_gap", "radius",
]  # fmt: skip

Equilibrium = Literal["nash", "correlated", "coarse"]

_MOST = 4096  # deterministic deviations that are all tried


class CountedGame(NamedTuple):
    """A game as a log shows it: P [S, J, S'] and r [m, S, J] of the likeliest model, `n` [S, J],
    how often each was seen, `d0` [S], `gamma`, and how many actions each player has."""

    P: Float[Tensor, "S J S"]
    r: Float[Tensor, "m S J"]
    n: Float[Tensor, "S J"]
    d0: Float[Tensor, "S"]
    gamma: float
    sizes: tuple[int, ...]


class Bounds(NamedTuple):
    """The ends of the interval of a joint policy's value to each player, [..., m]."""

    low: Tensor
    high: Tensor


def deviations(
    pi: Float[Tensor, "... S J"], sizes: tuple[int, ...], player: int, kind: Equilibrium = "nash"
) -> Iterator[Float[Tensor, "... S J"]]:
    """The joint policy after each way in which one player may leave it in a state: by an action of
    its own whatever it is told, or (correlated) by any map from what it is told to what it does."""
    if kind not in ("nash", "correlated", "coarse"):
        raise InputError(f"an equilibrium is nash, correlated or coarse, not {kind!r}")
    k, lead = sizes[player], pi.shape[:-1]
    told = pi.reshape(*lead, *sizes).movedim(len(lead) + player, -1)  # [..., S, others, k]
    maps = itertools.product(range(k), repeat=k) if kind == "correlated" else (
        (a,) * k for a in range(k))  # fmt: skip
    for to in maps:
        move = torch.zeros(k, k, dtype=pi.dtype)
        move[torch.arange(k), torch.tensor(to)] = 1.0
        yield (told @ move).movedim(-1, len(lead) + player).reshape(pi.shape)


def radius(seen: CountedGame, c: float, delta: float = 0.05) -> float:
    """beta = c V_max^2 S J log(N / delta) / N, V_max = 1 / (1 - gamma) with rewards in [0, 1].

    Raises:
        InputError: when nothing was logged, or c or delta is out of its range.
    """
    if not seen.n.sum() > 0:
        raise InputError("the game's log is empty; log some joint actions first")
    if c < 0 or not 0 < delta < 1:
        raise InputError(f"c={c:g}, delta={delta:g}: c is not negative, delta between 0 and 1")
    total, most = float(seen.n.sum()), 1 / (1 - seen.gamma)
    return c * most**2 * seen.n.numel() * math.log(total / delta) / total


def bounds(seen: CountedGame, pi: Float[Tensor, "... S J"], beta: float) -> Bounds:
    """The interval around the model's value, within [0, V_max]; differentiable in the policy."""
    most = 1 / (1 - seen.gamma)
    moved = torch.einsum("...sj,sjt->...st", pi, seen.P)
    eye = torch.eye(moved.shape[-1], dtype=pi.dtype)
    start = ((1 - seen.gamma) * seen.d0).expand(*moved.shape[:-1])[..., None]
    d = torch.linalg.solve((eye - seen.gamma * moved).mT, start) * pi
    worth = most * torch.einsum("...sj,msj->...m", d, seen.r)
    known = seen.n > 0
    spread = (d.square() * seen.n.sum() / seen.n.clamp_min(1) * known).sum((-1, -2))
    width = most * ((beta * spread + 1e-24).sqrt() + most * (d * ~known).sum((-1, -2)))
    if beta == 0:
        width = torch.zeros_like(width)
    low, high = worth - width[..., None], worth + width[..., None]
    return Bounds(low.clamp(0.0, most), high.clamp(0.0, most))


def estimated_gap(
    seen: CountedGame, pi: Float[Tensor, "... S J"], beta: float, kind: Equilibrium = "nash"
) -> Float[Tensor, "..."]:
    """max_i [max over deviations of the upper end - the lower end of the policy], of a joint
    policy, or of several; with beta 0 the gap in the model.

    The upper end is convex in the occupancy, so that a deterministic deviation is the best: all of
    them are tried.

    Raises:
        InputError: when there are more than 4,096.
    """
    low, gaps = bounds(seen, pi, beta).low, []
    for i in range(len(seen.sizes)):
        options = torch.stack(list(deviations(pi, seen.sizes, i, kind)), -2)  # [..., S, O, J]
        S, count = options.shape[-3], options.shape[-2]
        if count**S > _MOST:
            raise InputError(
                f"player {i} has {count} ways to deviate in each of {S} states, more than "
                f"{_MOST:,} in all; that many cannot be tried one by one"
            )
        every = torch.tensor(list(itertools.product(range(count), repeat=S)))  # [D, S]
        left = options.movedim(-2, 0)[every, ..., torch.arange(S), :]  # [D, S, ..., J]
        left = left.movedim(1, -2)
        gaps.append(bounds(seen, left, beta).high[..., i].amax(0) - low[..., i])
    return torch.stack(gaps).amax(0)
