"""Families of tabular problems: random models, chains, locks, grids, and graphs given as text."""

from __future__ import annotations

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.tasks.tabular import TabularMDP

__all__ = [
    "GRIDS", "chain", "combination_lock", "four_rooms", "grid_layout", "grid_world", "random_mdp",
    "river_swim",
]  # fmt: skip

GRIDS: dict[str, tuple[str, ...]] = {
    "open": ("S....", ".....", ".....", ".....", "....G"),
    "cliff": ("............", "............", "............", "SCCCCCCCCCCG"),
    "four-rooms": (
        "S....#.....",
        ".....#.....",
        "...........",
        ".....#.....",
        ".....#.....",
        "#.####.....",
        ".....###.##",
        ".....#.....",
        ".....#.....",
        "...........",
        ".....#....G",
    ),
    "even-rooms": (
        "S...#....",
        ".........",
        "....#....",
        "....#....",
        "##.###.##",
        "....#....",
        "....#....",
        ".........",
        "....#....",
    ),
    "lake": ("S...", ".H.H", "...H", "H..G"),
    "bifurcation-1": ("##...", "##.#.", "##.#G", "##.#.", "S...."),
    "bifurcation-2": (
        "..G....",
        ".#.#.#.",
        ".#.#.#.",
        ".#.#.#.",
        ".#.#.#.",
        ".#.#.#.",
        "...S...",
    ),
    "bifurcation-3": ("G.....", "G.....", "G##...", ".#....", "..S...", "##...."),
    "bifurcation-4": (
        ".......",
        ".......",
        "..###..",
        "...G...",
        "..###..",
        ".......",
        "S......",
    ),
}
"""Layouts by name. S start, G goal, # wall, H hole (an end), C cliff (back to the start), .
free. In the "bifurcation" grids two ways part and join again, so that a policy may
differ from another and still come by the same cells ("Trajectory-Aware Eligibility Traces for
Off-Policy Reinforcement Learning", 2023)."""


def random_mdp(
    n_states: int,
    n_actions: int,
    *,
    gamma: float = 0.9,
    horizon: int | None = None,
    branching: int | None = None,
    reward_sparsity: float = 0.0,
    stationary: bool = True,
    generator: torch.Generator | None = None,
) -> TabularMDP:
    """A random model: `branching` successors per (s, a) with Dirichlet(1) weights, rewards uniform
    on [0, 1].

    Also known as Garnet problems (Archibald, McKinnon and Thomas, "On the Generation of Markov
    Decision Processes",
    1995).

    Args:
        n_states: S.
        n_actions: A.
        gamma: discount.
        horizon: length of an episode, or None.
        branching: number of successors; all states by default.
        reward_sparsity: share of the (s, a) pairs that earn nothing.
        stationary: one table for all steps, or with a horizon one for each.
        generator: source of randomness.
    """
    b = n_states if branching is None else branching
    if not 1 <= b <= n_states:
        raise InputError(f"branching must lie in 1..{n_states}, got {b}")
    steps = () if stationary or horizon is None else (horizon,)
    shape = (*steps, n_states, n_actions)
    f64 = torch.float64
    weights = -torch.rand(*shape, b, generator=generator, dtype=f64).clamp_min(1e-12).log()
    weights = weights / weights.sum(-1, keepdim=True)
    where = torch.rand(*shape, n_states, generator=generator, dtype=f64).argsort(-1)[..., :b]
    P = torch.zeros(*shape, n_states, dtype=f64).scatter(-1, where, weights)
    r = torch.rand(shape, generator=generator, dtype=f64)
    r = r * (torch.rand(shape, generator=generator, dtype=f64) >= reward_sparsity)
    d0 = torch.full((n_states,), 1 / n_states, dtype=f64)
    return TabularMDP(P, r, d0, gamma, horizon)


def chain(
    n_states: int,
    *,
    slip: float = 0.0,
    gamma: float = 0.95,
    horizon: int | None = None,
    small: float = 0.0,
    large: float = 1.0,
) -> TabularMDP:
    """Left or right along a line, from the left end.

    Staying at the left end by going left earns `small`, at the right end by going right `large`;
    with probability
    `slip` the move goes the other way. Strehl and Littman's RiverSwim (2008) is of this kind.
    """
    at = torch.arange(n_states)
    left, right = (at - 1).clamp_min(0), (at + 1).clamp_max(n_states - 1)
    P = torch.zeros(n_states, 2, n_states, dtype=torch.float64)
    for a, (to, other) in enumerate(((left, right), (right, left))):
        P[at, a, to] += 1 - slip
        P[at, a, other] += slip
    r = torch.zeros(n_states, 2, dtype=torch.float64)
    r[0, 0], r[-1, 1] = small, large
    d0 = torch.zeros(n_states, dtype=torch.float64)
    d0[0] = 1.0
    return TabularMDP(P, r, d0, gamma, horizon)


def river_swim(n_states: int = 6, horizon: int = 20) -> TabularMDP:
    """Left with the current, which is sure, or right against it, which moves on with 0.35 and back
    with 0.05; 0.005 for going left at the left end, 1 for going right at the right end.

    From "An analysis of model-based interval estimation for Markov decision processes" (2008).
    """
    S = n_states
    at = torch.arange(S)
    P = torch.zeros(S, 2, S, dtype=torch.float64)
    P[at, 0, (at - 1).clamp_min(0)] = 1.0
    for s in range(S):
        stay, on = (0.6 if s else 0.4), (0.35 if s else 0.6)
        P[s, 1, max(s - 1, 0)] += 0.05 if s else 0.0
        P[s, 1, s] += stay
        P[s, 1, min(s + 1, S - 1)] += on
    P[-1, 1] = 0.0
    P[-1, 1, -2:] = torch.tensor([0.4, 0.6], dtype=torch.float64)
    r = torch.zeros(S, 2, dtype=torch.float64)
    r[0, 0], r[-1, 1] = 0.005, 1.0
    return TabularMDP(P, r, torch.eye(S, dtype=torch.float64)[0], 1.0, horizon)


def combination_lock(
    horizon: int,
    n_actions: int = 10,
    *,
    anti_reward: float = 0.1,
    anti_probability: float = 0.5,
    switch: float = 0.5,
    generator: torch.Generator | None = None,
) -> tuple[TabularMDP, Tensor]:
    """A stochastic combination lock with states good0, good1 and bad, and its secret code [H, 2].

    In a good state one action, of its own for each step and each good state, leads on to a good
    state (to the other
    one with probability `switch`); every other leads to bad for ever, where the fall pays
    `anti_reward` with
    `anti_probability` (here its expectation). The last right action pays 1 (Misra et al.,
    "Kinematic State Abstraction
    and Provably Efficient Rich-Observation Reinforcement Learning", 2020).
    """
    H, A, f64 = horizon, n_actions, torch.float64
    code = torch.randint(A, (H, 2), generator=generator)
    P = torch.zeros(H, 3, A, 3, dtype=f64)
    r = torch.zeros(H, 3, A, dtype=f64)
    P[..., 2] = 1.0
    r[:, :2] = anti_reward * anti_probability
    for h in range(H):
        for good in (0, 1):
            right = int(code[h, good])
            P[h, good, right] = torch.tensor(
                [switch if good else 1 - switch, 1 - switch if good else switch, 0.0], dtype=f64
            )
            r[h, good, right] = float(h == H - 1)
    d0 = torch.tensor([0.5, 0.5, 0.0], dtype=f64)
    return TabularMDP(P, r, d0, 1.0, H), code


def grid_layout(layout: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The rows of a layout: a name in `GRIDS`, or rows of equal length.

    Raises:
        InputError: for an unknown name, ragged rows, unknown characters, or no start.
    """
    if isinstance(layout, str) and layout not in GRIDS:
        raise InputError(f"no grid named {layout!r}; there are {', '.join(GRIDS)}, or give rows")
    rows = GRIDS[layout] if isinstance(layout, str) else tuple(layout)
    if len({len(row) for row in rows}) != 1:
        raise InputError("the rows of a grid must have the same length")
    odd = set("".join(rows)) - set("SG#HC.")
    if odd:
        raise InputError(f"a grid is made of S G # H C and '.', not of {', '.join(sorted(odd))}")
    if "S" not in "".join(rows):
        raise InputError("a grid needs a start, S")
    return rows


def grid_world(
    layout: str | tuple[str, ...] | list[str] = "open",
    *,
    slip: float = 0.0,
    step_reward: float = 0.0,
    goal_reward: float = 1.0,
    hole_reward: float = 0.0,
    cliff_reward: float = -100.0,
    gamma: float = 0.95,
    horizon: int | None = None,
    leaving: bool = False,
) -> TabularMDP:
    """A grid of cells; actions up, right, down, left; walls and borders block.

    With probability `slip` the move goes sideways (half of it to each side). Entering the goal
    pays `goal_reward`,
    entering a hole `hole_reward`, and both end the episode; entering a cliff pays `cliff_reward`
    and leads back to the
    start; every other step pays `step_reward`. States are the free cells, row by row; starts are
    equally likely. With `leaving` the goal pays when it is left, by any action, to an extra last
    state in which nothing is earned.
    """
    rows = grid_layout(layout)
    cells = [(y, x) for y, row in enumerate(rows) for x, c in enumerate(row) if c != "#"]
    number = {cell: i for i, cell in enumerate(cells)}
    kind = [rows[y][x] for y, x in cells]
    starts = [i for i, k in enumerate(kind) if k == "S"]
    moves = ((-1, 0), (0, 1), (1, 0), (0, -1))
    S = len(cells)
    P = torch.zeros(S, 4, S, dtype=torch.float64)
    r = torch.zeros(S, 4, dtype=torch.float64)
    pays = {"G": goal_reward, "H": hole_reward, "C": cliff_reward}
    for i, (y, x) in enumerate(cells):
        for a in range(4):
            for turn, p in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
                dy, dx = moves[(a + turn) % 4]
                j = number.get((y + dy, x + dx), i)
                entered = kind[j] if j != i else "."
                r[i, a] += p * pays.get(entered, step_reward)
                if entered == "C":
                    P[i, a, starts] += p / len(starts)
                else:
                    P[i, a, j] += p
    d0 = torch.zeros(S, dtype=torch.float64)
    d0[starts] = 1 / len(starts)
    end = torch.tensor([k in "GH" for k in kind])
    if leaving:
        goal = torch.tensor([k == "G" for k in kind])
        r = r - (goal_reward - step_reward) * P[..., goal].sum(-1)  # not when it is entered
        P = torch.nn.functional.pad(P, (0, 1, 0, 0, 0, 1))
        r, d0 = (torch.nn.functional.pad(x, p) for x, p in ((r, (0, 0, 0, 1)), (d0, (0, 1))))
        P[-1, :, -1] = 1.0
        P[:-1][goal] = P[-1]
        r[:-1][goal] = goal_reward
        end = torch.cat([end & ~goal, torch.tensor([True])])
    return TabularMDP(P, r, d0, gamma, horizon, end)


def four_rooms(kind: str = "plain", gamma: float = 0.95) -> TabularMDP:
    """Four rooms of 16 cells and four doors, without any reward, from everywhere.

    Args:
        kind: "plain"; "windy", where a move goes sideways half of the time; or "teleport", where
            any action in the middle of a room leads evenly to the cells of the opposite room.

    Raises:
        InputError: for another kind.
    """
    if kind not in ("plain", "windy", "teleport"):
        raise InputError(f"four rooms are plain, windy or teleport, not {kind!r}")
    rows = GRIDS["even-rooms"]
    P = grid_world(rows, slip=0.5 if kind == "windy" else 0.0, gamma=gamma).P.clone()
    cells = [(y, x) for y, row in enumerate(rows) for x, c in enumerate(row) if c != "#"]
    S = len(cells)
    if kind == "teleport":
        for top, left in ((0, 0), (0, 5), (5, 0), (5, 5)):
            other = [i for i, (y, x) in enumerate(cells)
                     if 0 <= y - (5 - top) < 4 and 0 <= x - (5 - left) < 4]  # fmt: skip
            middle = cells.index((top + 1, left + 1))
            P[middle] = 0.0
            P[middle][:, other] = 1 / len(other)
    even = torch.full((S,), 1 / S, dtype=torch.float64)
    return TabularMDP(P, torch.zeros(S, 4, dtype=torch.float64), even, gamma)
