"""Values on a regular grid over a box of states, exact up to interpolation: value iteration for
problems of two or three dimensions, and an agent of several goals made of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surpass.errors import InputError

__all__ = ["GoalGrid", "Grid", "goal_grid"]

Moves = Callable[[Float[Tensor, "N d"], Int[Tensor, "N"]], Float[Tensor, "N d"]]
Arriving = Callable[[Float[Tensor, "N d"], Float[Tensor, "N k"]], Float[Tensor, "N"]]
"""From states and the goals of each, [N, k]: what arriving pays, or whether it ends (0.0 or 1.0).
What it needs to know of goals stands in them, so that it can be compiled."""


class Grid:
    """`n` points along each dimension of the box [low, high]."""

    def __init__(self, low: Sequence[float], high: Sequence[float], n: int) -> None:
        if n < 2 or len(low) != len(high) or any(a >= b for a, b in zip(low, high, strict=True)):
            raise InputError(
                f"a grid has at least 2 points from low to high, not {n} in {low} to {high}"
            )
        self.low, self.high, self.n = tuple(low), tuple(high), n

    @property
    def points(self) -> Float[Tensor, "N d"]:
        """All points, the last dimension running fastest."""
        axes = [torch.linspace(a, b, self.n) for a, b in zip(self.low, self.high, strict=True)]
        return torch.cartesian_prod(*axes).reshape(-1, len(axes))

    def corners(self, x: Float[Tensor, "... d"]) -> tuple[Int[Tensor, "... c"], Tensor]:
        """The numbers of the 2^d points around, and their weights; outside the box, of its edge."""
        low, high = (torch.tensor(b, dtype=x.dtype, device=x.device) for b in (self.low, self.high))
        at = ((x - low) / (high - low) * (self.n - 1)).clamp(0.0, self.n - 1.0)
        first = at.detach().floor().clamp(max=self.n - 2)
        share, first = at - first, first.long()
        places, weights = [], []
        for up in itertools.product((0, 1), repeat=x.shape[-1]):
            place, weight = torch.zeros_like(first[..., 0]), torch.ones_like(share[..., 0])
            for k, one in enumerate(up):
                place = place * self.n + first[..., k] + one
                weight = weight * (share[..., k] if one else 1.0 - share[..., k])
            places.append(place)
            weights.append(weight)
        return torch.stack(places, -1), torch.stack(weights, -1)


class GoalGrid(nn.Module):
    """An agent of G goals [G, k]: action values [G, A, N] at the points of a grid, linear between
    them along each dimension, and differentiable in the state."""

    q: Tensor
    goals: Tensor

    def __init__(
        self, grid: Grid, q: Float[Tensor, "G A N"], goals: Float[Tensor, "G k"], reward: Arriving,
        done: Arriving,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grid, self.actions = grid, q.shape[1]
        self.register_buffer("q", q)
        self.register_buffer("goals", goals)
        self._reward, self._done = reward, done

    def reward(self, obs: Float[Tensor, "B d"], goal: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """What arriving pays, by the number of each row's goal."""
        return self._reward(obs, self.goals[goal])

    def done(self, obs: Float[Tensor, "B d"], goal: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """1 where arriving ends the episode."""
        return self._done(obs, self.goals[goal])

    def all(self, obs: Float[Tensor, "B d"], goal: Int[Tensor, "B"]) -> Float[Tensor, "B A"]:
        """The values of all actions toward a goal of each row."""
        place, weight = self.grid.corners(obs)
        flat = self.q.permute(0, 2, 1).flatten(0, 1)  # [G N, A]
        at = goal[:, None] * self.q.shape[-1] + place
        return (flat[at] * weight[..., None]).sum(-2)

    def act(self, obs: Float[Tensor, "B d"], goal: int = 0) -> Int[Tensor, "B"]:
        """The best action toward a goal."""
        which = torch.full((len(obs),), goal, dtype=torch.long, device=obs.device)
        return self.all(obs, which).argmax(-1)


@torch.no_grad()
def goal_grid(
    moves: Moves,
    grid: Grid,
    actions: int,
    goals: Float[Tensor, "G k"],
    reward: Arriving,
    done: Arriving,
    gamma: float = 0.99,
    sweeps: int = 2_000,
    tolerance: float = 1e-8,
) -> GoalGrid:
    """Value iteration of a deterministic world with A actions, for all goals at once:

        Q(s, a, g) = r(s', g) + gamma (1 - done(s', g)) max_a' Q(s', a', g),   s' = moves(s, a)

    Args:
        moves: s' of points [N, d] and actions [N]. goals: [G, k]. reward, done: of arriving.
        sweeps: at most, until no value moves by more than `tolerance`.
    """
    points = grid.points
    n = len(points)
    after = torch.stack([moves(points, torch.full((n,), a)) for a in range(actions)])  # [A, N, d]
    flat = after.flatten(0, 1)
    place, weight = grid.corners(flat)
    q = []
    for goal in goals:
        which = goal.expand(len(flat), -1)
        paid, goes_on = reward(flat, which), gamma * (1.0 - done(flat, which))
        weights = weight * goes_on[:, None]
        v = torch.zeros(n)
        for _ in range(sweeps):
            new = (paid + (v[place] * weights).sum(-1)).view(actions, n)
            best = new.amax(0)
            moved, v = float((best - v).abs().max()), best
            if moved <= tolerance:
                break
        q.append((paid + (v[place] * weights).sum(-1)).view(actions, n))
    return GoalGrid(grid, torch.stack(q), goals, reward, done)
