"""Logs of mazes."""

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.maze import PointMaze
from surpass.tasks.point import clipped_normal
from surpass.tasks.walks import maze_log, steer


def test_demonstrations_reach_the_goal_on_nearly_shortest_paths():
    maze = PointMaze("u")
    log = maze_log(maze, "demo", 3000, noise=0.2, seed=1)
    lengths = torch.bincount(log.episode)
    last = lengths.cumsum(0) - 1
    assert len(log) >= 3000 and log.terminated[last].all()
    assert float(log.reward.sum()) == len(lengths)
    start = maze.place(log.obs[torch.cat([torch.zeros(1).long(), last[:-1] + 1])])
    shortest = maze.paths.distance(start, maze.cells("G"))
    assert (lengths >= (shortest - maze.radius) / maze.scale / 2**0.5 - 1).all()
    assert float(lengths.sum() * maze.scale / (shortest - maze.radius).sum()) < 1.3


def test_play_goes_everywhere_and_earns_by_chance():
    maze = PointMaze("u", scale=0.15)
    log = maze_log(maze, "play", 5000, seed=2)
    cells = maze.place(log.obs).floor().long()
    visited = {tuple(c) for c in cells.tolist()}
    assert visited == {tuple(c) for c in maze.cells("free").floor().long().tolist()}
    lengths = torch.bincount(log.episode)
    last = lengths.cumsum(0) - 1
    assert (log.terminated | log.truncated)[last].all()
    assert int((log.terminated | log.truncated).sum()) == len(lengths)
    inside = torch.ones(len(log), dtype=torch.bool)
    inside[last] = False
    torch.testing.assert_close(log.next_obs[:-1][inside[:-1]], log.obs[1:][inside[:-1]])


def test_log_probs_are_those_of_the_follower():
    from surpass.tasks.maze import Waypoints

    maze = PointMaze("u")
    log = maze_log(maze, "demo", 500, noise=0.4, seed=3)
    mean = steer(maze, Waypoints(maze.rows, 0.15), maze.place(log.obs), log.extras["aim"])
    expected = clipped_normal(log.action, mean, 0.4).sum(-1)
    # where a way-point is nearly reached the next one may be taken, by rounding of the observation
    same = (log.behavior_logp - expected).abs() < 1e-3
    assert float(same.float().mean()) > 0.99


def test_bad_walks():
    with pytest.raises(InputError, match="demo or play"):
        maze_log(kind="work")
    with pytest.raises(InputError, match="without inertia"):
        maze_log(PointMaze("u", inertia=0.5))
