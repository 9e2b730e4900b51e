"""Point mazes: walls hold, and shortest paths are exact."""

import heapq
import math

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.maze import MAZES, PointMaze, Waypoints
from surpass.tasks.protocol import Batched

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_distances_around_a_wall_by_hand():
    paths = Waypoints(("...", "##.", "..."))
    p = torch.tensor([[0.5, 2.5], [0.5, 2.5], [2.5, 2.5]])
    goal = torch.tensor([[0.5, 0.5], [2.5, 2.5], [2.5, 0.5]])
    around = 2 * math.hypot(1.5, 0.5) + 1  # to the corner (2, 2), along the wall, from (2, 1)
    torch.testing.assert_close(paths.distance(p, goal), torch.tensor([around, 2.0, 2.0]).double())
    assert paths.next(p, goal).tolist() == [[2.0, 2.0], [2.5, 2.5], [2.5, 0.5]]


def test_walls_that_touch_close_the_way():
    p, goal = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.5, 1.5]])
    assert Waypoints((".#", "#.")).distance(p, goal).item() == math.inf  # only the corner is open
    assert Waypoints(("..#", "###", "#..")).distance(p, torch.tensor([[2.5, 2.5]])).isinf()
    # along the seam of two neighboring wall cells
    seam = Waypoints((".", "#", ".")), Waypoints(("..", "##", ".."))
    assert seam[1].distance(torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 2.5]])).isinf()
    assert seam[0].distance(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 2.5]])).isinf()


def lattice_distance(rows, start, goal, k):
    """Dijkstra on a lattice of k points a cell, many directions: a close upper bound."""
    moves = [(i, j) for i in range(-5, 6) for j in range(-5, 6) if math.gcd(i, j) == 1]
    size = (len(rows[0]) * k, len(rows) * k)

    def free(x, y):
        return (
            0 <= x < size[0]
            and 0 <= y < size[1]
            and rows[int((y + 0.5) / k)][int((x + 0.5) / k)] != "#"
        )

    def clear(x, y, i, j):
        return all(free(x + i * s / 20, y + j * s / 20) for s in range(21))

    a, b = (tuple(int(c * k) for c in point) for point in (start, goal))
    best, heap = {a: 0.0}, [(0.0, a)]
    while heap:
        d, (x, y) = heapq.heappop(heap)
        if (x, y) == b:
            return d / k
        if d > best[x, y]:
            continue
        for i, j in moves:
            to = (x + i, y + j)
            new = d + math.hypot(i, j)
            if free(*to) and new < best.get(to, math.inf) and clear(x, y, i, j):
                best[to] = new
                heapq.heappush(heap, (new, to))
    return math.inf


@pytest.mark.parametrize("name", ["u", "t", "two-routes"])
def test_distances_are_those_of_a_search_on_a_fine_lattice(name):
    rows, k = MAZES[name], 8
    paths = Waypoints(rows)
    cells = PointMaze(rows if name != "t" else "t", goal="random", start="random").cells("free")
    for i in (0, len(cells) // 2):
        start, goal = cells[i : i + 1], cells[-1:]
        exact = float(paths.distance(start, goal))
        found = lattice_distance(rows, start[0].tolist(), goal[0].tolist(), k)
        assert exact <= found + 2 / k  # the lattice is shifted by at most one place
        assert exact == pytest.approx(found, rel=0.06, abs=2 / k)


@pytest.mark.parametrize("name", ["large", "four-rooms", "two-routes"])
def test_distances_equal_those_over_all_corners(name):
    env = PointMaze(name, start="random", goal="random", dtype=F64)
    state, _ = env.reset(60, seeded(2))
    p, goal, paths = state["p"], state["goal"], env.paths

    def straight(a, b):
        far = (a[:, None] - b[None]).norm(dim=-1)
        return torch.where(paths.visible(a[:, None], b[None]), far, torch.inf)

    nodes = torch.cat([paths.corners, p, goal])
    between = straight(nodes, nodes)
    for k in range(len(paths.corners)):
        between = torch.minimum(between, between[:, k, None] + between[None, k])
    first = len(paths.corners) + torch.arange(60)
    torch.testing.assert_close(paths.distance(p, goal), between[first, first + 60])


def test_triangle_inequality_and_symmetry():
    env = PointMaze("large", start="random", goal="random")
    state, _ = env.reset(300, seeded())
    a, b = state["p"], state["goal"]
    c = b.roll(1, 0)
    d = env.paths.distance
    torch.testing.assert_close(d(a, b), d(b, a))
    assert (d(a, b) <= d(a, c) + d(c, b) + 1e-9).all()
    assert (d(a, b) >= (a - b).norm(dim=1) - 1e-6).all()
    assert d(a, b).isfinite().all()


@pytest.mark.parametrize("name", MAZES)
def test_no_step_enters_a_wall_or_leaves(name):
    env = PointMaze(name, start="random", goal="random", scale=0.9, drift=0.3, terminal=False)
    state, _ = env.reset(100, seeded())
    generator = seeded(1)
    for _ in range(40):
        before = state["p"]
        noise = torch.rand(100, 2, generator=generator)
        state = env.step(state, 4 * env.spaces.sample(100, generator), noise).state
        x, y = state["p"].floor().long().unbind(-1)
        assert not env.walls[y + 1, x + 1].any()
        assert ((state["p"] - before).abs() < 1.0).all()
        assert env.paths.distance(before, state["p"]).isfinite().all()


def test_a_free_move_is_the_action_times_the_scale_and_walls_let_slide():
    env = PointMaze("u", scale=0.1, dtype=F64)
    p = torch.tensor([[1.5, 2.5], [1.5, 2.05], [2.5, 2.95]], dtype=F64)
    a = torch.tensor([[1.0, -0.5], [0.5, -1.0], [1.0, 1.0]], dtype=F64)
    zero = torch.zeros(3, 2, dtype=F64)
    state = {"p": p, "v": zero, "goal": zero + 0.5, "t": torch.zeros(3).long()}
    after = env.step(state, a).state["p"]
    expected = torch.tensor([[1.6, 2.45], [1.55, 2.0001], [2.6, 2.9999]], dtype=F64)
    torch.testing.assert_close(after, expected)


def test_inertia_keeps_velocity_and_walls_take_it():
    env = PointMaze("u", scale=0.2, inertia=0.5, dtype=F64)
    p = torch.tensor([[0.5, 2.95]], dtype=F64)
    state = {
        "p": p,
        "v": torch.tensor([[0.1, 0.1]], dtype=F64),
        "goal": p,
        "t": torch.zeros(1).long(),
    }
    after = env.step(state, torch.zeros(1, 2, dtype=F64)).state
    torch.testing.assert_close(after["v"], torch.tensor([[0.05, 0.0]], dtype=F64))
    torch.testing.assert_close(after["p"], torch.tensor([[0.55, 2.9999]], dtype=F64))
    assert env.spaces.obs_dim == 4


@pytest.mark.parametrize("name", ["u", "four-rooms", "two-routes"])
def test_a_way_point_follower_reaches_every_goal(name):
    env = Batched(PointMaze(name, start="random", goal="random", scale=0.3, horizon=120), 40, 5)
    guide = Waypoints(MAZES[name], margin=0.15)
    maze = env.simulator
    arrived = torch.zeros(40, dtype=torch.bool)
    first = torch.zeros(40, dtype=torch.long)
    length = maze.paths.distance(env.state["p"], env.state["goal"])
    for t in range(120):
        p, goal = env.state["p"], env.state["goal"]
        to = guide.next(p, goal) - p
        stepped = env.step(to / to.norm(dim=1, keepdim=True).clamp_min(0.3))
        first = torch.where(stepped.terminated & ~arrived, t + 1, first)
        arrived |= stepped.terminated
        assert (stepped.reward == stepped.terminated.float()).all()
    assert arrived.all()
    # unit speed 0.3 along the path, until the disc of radius 0.35; turning costs a little
    assert (first >= (length - 0.35) / 0.3 - 1).all()
    assert float((first * 0.3).sum() / length.sum()) < 1.25


def test_distance_rewards_are_shortest_paths():
    env = PointMaze("u", reward="distance", terminal=False)
    state, obs = env.reset(50, seeded())
    torch.testing.assert_close(env.place(obs), state["p"])
    step = env.step(state, env.spaces.sample(50, seeded(1)))
    torch.testing.assert_close(
        -step.reward.double(), env.paths.distance(step.state["p"], state["goal"]), atol=1e-6, rtol=0
    )


def test_bad_mazes():
    with pytest.raises(InputError, match="no maze named 'w'"):
        PointMaze("w")
    with pytest.raises(InputError, match="has no G"):
        PointMaze(("S.", ".."))
    with pytest.raises(InputError, match="scale must lie"):
        PointMaze(scale=1.5)
