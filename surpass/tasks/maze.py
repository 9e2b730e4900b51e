"""Point mazes: a point among walls, many copies at once, with exact shortest paths.

Coordinates are in cells, x to the right and y downward; observations are scaled to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surpass.errors import InputError
from surpass.tasks.protocol import Spaces, State, Step

__all__ = ["MAZES", "PointMaze", "Waypoints"]

MAZES: dict[str, tuple[str, ...]] = {
    "u": ("G..", "##.", "S.."),
    "four-rooms": (
        "S...#....",
        "....#....",
        ".........",
        "....#....",
        "##.###.##",
        "....#....",
        ".........",
        "....#....",
        "....#...G",
    ),
    "t": ("S...G", "##.##", "##.##", "##A##"),
    "two-routes": (".....", ".###.", "S###G", ".###.", "....."),
    "large": (
        "S...#....",
        ".##.#.##.",
        ".#.....#.",
        ".#.###.#.",
        "...#G#...",
        ".#.#.#.#.",
        ".#.....#.",
        ".##.#.##.",
        "....#....",
    ),
}
"""Layouts by name: S starts, G goal, # wall, other letters free places with a name."""

_EPS = 1e-4


@dataclass(frozen=True)
class PointMaze:
    """A point in a maze of cells; walls block, axis by axis, so that the point slides along them.

    Action in [-1, 1]^2, moved `scale` cells times the action; with `inertia` m the velocity is
    v <- m v + (1 - m) scale a and is observed too. Observation: place [2], velocity [2] where there
    is inertia, goal [2] where it changes, all scaled to [-1, 1] over the larger side of the maze.

    Attributes:
        layout: a name in `MAZES`, or rows.
        scale: cells per step at full action.
        inertia: share of the velocity that is kept.
        goal: "fixed" (the cell G) or "random" (the middle of any free cell, drawn with the start,
            observed).
        start: "fixed" (the cells S) or "random" (any free cell); uniform within the cell.
        reward: "sparse" (1 inside the goal, else 0) or "distance" (minus the shortest path, in
            cells).
        radius: of the goal disc, in cells.
        terminal: whether reaching the goal ends the episode.
        drift: standard deviation, in cells, of Gaussian noise on every move.
        horizon: steps until truncation.
        dtype: of places and observations.
    """

    layout: str | tuple[str, ...] = "u"
    scale: float = 0.075
    inertia: float = 0.0
    goal: str = "fixed"
    start: str = "fixed"
    reward: str = "sparse"
    radius: float = 0.35
    terminal: bool = True
    drift: float = 0.0
    horizon: int = 200
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if isinstance(self.layout, str) and self.layout not in MAZES:
            raise InputError(f"no maze named {self.layout!r}; there are {', '.join(MAZES)}")
        for name, known in (
            ("goal", ("fixed", "random")),
            ("start", ("fixed", "random")),
            ("reward", ("sparse", "distance")),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)}")
        rows = self.rows
        if len({len(row) for row in rows}) != 1:
            raise InputError("the rows of a maze must have the same length")
        for letter, kind in (("S", self.start), ("G", self.goal)):
            if kind == "fixed" and not any(letter in row for row in rows):
                raise InputError(f"the maze has no {letter}")
        if not 0 < self.scale < 1:
            raise InputError(f"scale must lie in (0, 1), so that no wall is jumped: {self.scale}")

    @property
    def rows(self) -> tuple[str, ...]:
        """The layout, a text per row."""
        return MAZES[self.layout] if isinstance(self.layout, str) else tuple(self.layout)

    @property
    def noise_dim(self) -> int:
        """Two uniform numbers a step where there is drift."""
        return 2 if self.drift else 0

    @property
    def spaces(self) -> Spaces:
        """Place, velocity and goal in, a move out."""
        size = 2 + 2 * (self.inertia > 0) + 2 * (self.goal == "random")
        return Spaces(size, action_dim=2, low=(-1.0, -1.0), high=(1.0, 1.0), horizon=self.horizon)

    @cached_property
    def walls(self) -> Bool[Tensor, "H+2 W+2"]:
        """Where the walls are, with a border all around: cell (x, y) is at [y + 1, x + 1]."""
        inner = torch.tensor([[c == "#" for c in row] for row in self.rows])
        return torch.nn.functional.pad(inner, (1, 1, 1, 1), value=True)

    @cached_property
    def _one_goal(self) -> bool:
        return len(self.cells("G")) == 1

    @cached_property
    def paths(self) -> Waypoints:
        """The exact shortest paths."""
        return Waypoints(self.rows)

    def cells(self, letters: str) -> Float[Tensor, "k 2"]:
        """The middles (x, y) of the cells with one of these letters; all free cells for "free"."""
        found = [
            (x + 0.5, y + 0.5)
            for y, row in enumerate(self.rows)
            for x, c in enumerate(row)
            if (c != "#" if letters == "free" else c in letters)
        ]
        return torch.tensor(found, dtype=self.dtype)

    def observe(self, state: State) -> Tensor:
        """The observation [n, d] of a state."""
        width, height = len(self.rows[0]), len(self.rows)
        half = max(width, height) / 2
        middle = torch.tensor([width / 2, height / 2], dtype=self.dtype, device=state["p"].device)
        parts = [(state["p"] - middle) / half]
        if self.inertia:
            parts.append(state["v"] / self.scale)
        if self.goal == "random":
            parts.append((state["goal"] - middle) / half)
        return torch.cat(parts, -1)

    def place(self, obs: Float[Tensor, "... d"]) -> Float[Tensor, "... 2"]:
        """Where an observation was made, in cells."""
        width, height = len(self.rows[0]), len(self.rows)
        middle = torch.tensor([width / 2, height / 2], dtype=obs.dtype, device=obs.device)
        return obs[..., :2] * max(width, height) / 2 + middle

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]:
        """Starts uniform in their cells, at rest."""
        device = generator.device if generator is not None else None

        def pick(letters: str) -> Tensor:
            cells = self.cells(letters).to(device)  # type: ignore[arg-type]
            return cells[torch.randint(len(cells), (n,), generator=generator, device=device)]

        u = torch.rand(n, 2, generator=generator, dtype=self.dtype, device=device)
        p = pick("S" if self.start == "fixed" else "free") + (u - 0.5) * (1 - 4 * _EPS)
        goal = pick("G" if self.goal == "fixed" else "free")
        t = torch.zeros(n, dtype=torch.long, device=device)
        state = {"p": p, "v": torch.zeros_like(p), "goal": goal, "t": t}
        return state, self.observe(state)

    def move(self, p: Float[Tensor, "n 2"], by: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Where a point gets, first along x, then along y; |by| < 1."""
        walls = self.walls.to(p.device)
        x, y = p.unbind(-1)
        x = _along(x, y, by[..., 0], lambda i, j: walls[j + 1, i + 1])
        y = _along(y, x, by[..., 1], lambda i, j: walls[i + 1, j + 1])
        return torch.stack([x, y], -1)

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step:
        """One move."""
        a = action.clamp(-1.0, 1.0).to(self.dtype)
        v = self.inertia * state["v"] + (1 - self.inertia) * self.scale * a
        by = v
        if self.drift:
            assert noise is not None, "drift needs noise"
            by = by + self.drift * torch.special.ndtri(noise.clamp(1e-6, 1 - 1e-6)).to(v.dtype)
        by = by.clamp(-0.999, 0.999)
        p = self.move(state["p"], by)
        # what a wall stopped has no speed in that direction any more
        v = torch.where((p - state["p"] - by).abs() > 1e-6, 0.0, v)
        t = state["t"] + 1
        new = {"p": p, "v": v, "goal": state["goal"], "t": t}
        away = (p - state["goal"]).square().sum(-1).sqrt()
        there = away < self.radius
        if self.reward == "sparse":
            reward = there.to(p.dtype)
        else:
            goal = state["goal"][:1] if self.goal == "fixed" and self._one_goal else state["goal"]
            reward = -self.paths.distance(p, goal).to(p.dtype)
        ended = there if self.terminal else torch.zeros_like(there)
        return Step(new, self.observe(new), reward, ended, (t >= self.horizon) & ~ended)


def _along(
    x: Tensor, other: Tensor, by: Tensor, wall: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Move along one axis, up to the wall; `wall(i, j)` with i along the axis."""
    i, j = x.floor().long(), other.floor().long()
    ahead = i + by.sign().long()
    blocked = wall(ahead, j)
    to = x + by
    low, high = i.to(x.dtype) + _EPS, i.to(x.dtype) + 1 - _EPS
    return torch.where(blocked, torch.minimum(torch.maximum(to, low), high), to)


class Waypoints:
    """Shortest paths among walls, exact: over the visibility graph of the corners of the walls.

    Args:
        rows: the layout.
        margin: how far from the corners paths turn, in cells; 0 for exact lengths, about 0.15 for a
            controller.
    """

    def __init__(self, rows: Sequence[str], margin: float = 0.0) -> None:
        self.rows, self.margin = tuple(rows), margin
        self.blocks = torch.tensor(_blocks(self.rows), dtype=torch.float64).reshape(-1, 4)
        self.corners = torch.tensor(_corners(self.rows, margin), dtype=torch.float64).reshape(-1, 2)
        self._between = self._all_pairs()
        self._sight = self._in_sight() if len(self.corners) else None

    def visible(self, a: Float[Tensor, "... 2"], b: Float[Tensor, "... 2"]) -> Bool[Tensor, "..."]:
        """Whether the straight line from a to b passes through no wall (touching is allowed)."""
        return ~self._blocked(a, b).any(-1)

    def _blocked(self, a: Tensor, b: Tensor) -> Bool[Tensor, "... W"]:
        """Whether the line from a to b passes through the inside of each block."""
        a, b = torch.broadcast_tensors(a.double(), b.double())
        a, d = a[..., None, :], (b - a)[..., None, :]
        low, high = self.blocks[:, :2].to(a.device), self.blocks[:, 2:].to(a.device)
        tiny = 1e-12
        flat = d.abs() < tiny
        safe = torch.where(flat, 1.0, d)
        t1, t2 = (low - a) / safe, (high - a) / safe
        inside = (a > low + tiny) & (a < high - tiny)
        enter = torch.where(flat, torch.where(inside, -torch.inf, torch.inf), torch.minimum(t1, t2))
        leave = torch.where(flat, torch.where(inside, torch.inf, -torch.inf), torch.maximum(t1, t2))
        return enter.amax(-1).clamp_min(0.0) < leave.amin(-1).clamp_max(1.0) - 1e-9

    def _in_sight(self) -> tuple[Int[Tensor, "cells M"], Bool[Tensor, "cells M"]]:
        """For each cell the corners that may be seen from somewhere in it, and which entries count.

        A corner that one block hides from all four ends of a cell is hidden from all of the cell,
        for what a convex block hides from a point is convex.
        """
        y, x = torch.meshgrid(
            torch.arange(len(self.rows)), torch.arange(len(self.rows[0])), indexing="ij"
        )
        cell = torch.stack([x, y], -1).reshape(-1, 1, 2)
        ends = cell + torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        hidden = self._blocked(ends[:, :, None], self.corners[None, None]).all(1).any(-1)
        many = max(1, int((~hidden).sum(1).max()))
        order = hidden.to(torch.int8).argsort(dim=-1, stable=True)[:, :many]
        return order, ~hidden.gather(1, order)

    def _to_corners(self, p: Float[Tensor, "n 2"]) -> Float[Tensor, "n K"]:
        """The straight way to every corner, infinite to those that are not seen."""
        assert self._sight is not None
        corners, which, counts = (x.to(p.device) for x in (self.corners, *self._sight))
        column = p[:, 0].floor().long().clamp(0, len(self.rows[0]) - 1)
        row = p[:, 1].floor().long().clamp(0, len(self.rows) - 1)
        cell = row * len(self.rows[0]) + column
        k = which[cell]
        seen = self.visible(p[:, None], corners[k]) & counts[cell]
        length = torch.where(seen, (p[:, None] - corners[k]).norm(dim=-1), torch.inf)
        return torch.full(
            (len(p), len(corners)), torch.inf, dtype=p.dtype, device=p.device
        ).scatter(1, k, length)

    def _all_pairs(self) -> Tensor:
        c = self.corners
        far = (c[:, None] - c[None]).norm(dim=-1)
        d = torch.where(self.visible(c[:, None], c[None]), far, torch.inf)
        for k in range(len(c)):  # Floyd and Warshall
            d = torch.minimum(d, d[:, k, None] + d[None, k])
        return d

    def distance(self, p: Float[Tensor, "n 2"], goal: Float[Tensor, "m 2"]) -> Float[Tensor, "n"]:
        """The length of the shortest path, in cells; infinite where there is none; m is n or 1."""
        direct, through = self._ways(p, goal)
        return torch.minimum(direct, through.amin(-1)) if len(self.corners) else direct

    def next(self, p: Float[Tensor, "n 2"], goal: Float[Tensor, "m 2"]) -> Float[Tensor, "n 2"]:
        """Where to head for: the goal where it is seen, else the first corner of a shortest path.

        A corner that is reached, to a thousandth of a cell, gives way to the next one.
        """
        direct, through = self._ways(p, goal)
        target = goal.expand_as(p)
        if not len(self.corners):
            return target
        c = self.corners.to(p.device)
        here = (p.double()[:, None] - c[None]).norm(dim=-1) < 1e-3
        best, at = through.masked_fill(here, torch.inf).min(-1)
        return torch.where((direct <= best)[:, None], target, c[at].to(p.dtype))

    def _ways(self, p: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths of the straight way [n], and of the best way by each corner first [n, K]."""
        p, goal = p.double(), goal.double()
        c, between = self.corners.to(p.device), self._between.to(p.device)
        direct = torch.where(self.visible(p, goal), (p - goal).norm(dim=-1), torch.inf)

        if not len(c):
            return direct, direct[:, None]
        rest = (between[None] + self._to_corners(goal)[:, None]).amin(-1)
        return direct, self._to_corners(p) + rest


def _wall(rows: Sequence[str], x: int, y: int) -> bool:
    return not (0 <= y < len(rows) and 0 <= x < len(rows[0])) or rows[y][x] == "#"


def _blocks(rows: Sequence[str]) -> list[tuple[float, float, float, float]]:
    """Rectangles that cover the walls: every run of wall cells along rows and along columns.

    Runs, and not cells, so that no line slips through between two neighbors; and a speck on every
    corner where walls touch diagonally.
    """
    H, W = len(rows), len(rows[0])
    out: list[tuple[float, float, float, float]] = []
    for y in range(H):
        x = 0
        while x < W:
            end = x
            while end < W and _wall(rows, end, y):
                end += 1
            if end > x:
                out.append((x, y, end, y + 1))
            x = end + 1
    for x in range(W):
        y = 0
        while y < H:
            end = y
            while end < H and _wall(rows, x, end):
                end += 1
            if end > y + 1:
                out.append((x, y, x + 1, end))
            y = end + 1
    for y in range(1, H):
        for x in range(1, W):
            a, b = _wall(rows, x - 1, y - 1), _wall(rows, x, y - 1)
            c, d = _wall(rows, x - 1, y), _wall(rows, x, y)
            if (a and d and not b and not c) or (b and c and not a and not d):
                out.append((x - 1e-6, y - 1e-6, x + 1e-6, y + 1e-6))
    return out


def _corners(rows: Sequence[str], margin: float) -> list[tuple[float, float]]:
    """The corners where a shortest path may turn, moved outward by `margin` along both axes."""
    out = []
    for y in range(1, len(rows)):
        for x in range(1, len(rows[0])):
            around = [(i, j) for j in (-1, 0) for i in (-1, 0) if _wall(rows, x + i, y + j)]
            if len(around) == 1:
                i, j = around[0]
                out.append((x - (2 * i + 1) * margin, y - (2 * j + 1) * margin))
    return out
