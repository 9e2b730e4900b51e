"""Logs of point mazes: a noisy follower of shortest paths, to the goal or at play."""

from __future__ import annotations

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import About, Transitions
from surpass.errors import InputError
from surpass.tasks.maze import PointMaze, Waypoints
from surpass.tasks.point import clipped_normal
from surpass.tasks.protocol import Batched
from surpass.tasks.recording import whole_episodes

__all__ = ["maze_log", "steer"]


def steer(
    maze: PointMaze,
    guide: Waypoints,
    place: Float[Tensor, "n 2"],
    target: Float[Tensor, "n 2"],
) -> Float[Tensor, "n 2"]:
    """The action in [-1, 1]^2 that goes straight to the next way-point, no further."""
    to = guide.next(place, target) - place
    return to / torch.maximum(to.norm(dim=-1, keepdim=True), torch.full_like(to, maze.scale))


def maze_log(
    maze: PointMaze | None = None,
    kind: str = "play",
    steps: int = 5_000,
    *,
    noise: float = 0.3,
    seed: int = 0,
    copies: int = 32,
) -> Transitions:
    """A log of a maze without inertia, of whole episodes, at least `steps` rows.

    "demo" follows shortest paths from the start to the goal. "play" starts anywhere and follows
    them to the middle of a random cell, then to the next; what it earns, it earns by chance. The
    action is clip(u + N(0, noise^2)). `extras["aim"]` [N, 2] is where the follower was going, and
    `behavior_logp` the exact log-probability given that (a density inside the bounds, a mass on
    them).

    Args:
        maze: the environment; the U maze by default. Play starts are random whatever it says.
        kind: "demo" or "play".
        steps: least number of rows.
        noise: standard deviation of the action noise.
        seed: of everything.
        copies: how many are walked at once.

    Raises:
        InputError: for another kind, a maze with inertia, or no noise.
    """
    maze = maze or PointMaze("u")
    if kind not in ("demo", "play"):
        raise InputError(f"kind is demo or play, not {kind!r}")
    if maze.inertia or noise <= 0:
        raise InputError("maze logs need a maze without inertia, and noise > 0")
    if kind == "play":
        settings = {k: getattr(maze, k) for k in maze.__dataclass_fields__}
        maze = PointMaze(**{**settings, "start": "random"})
    columns = _walk(maze, kind, steps, noise, seed, copies)
    keep, episode = whole_episodes(columns["terminated"], columns["truncated"])
    flat = {k: torch.stack(v, 1).flatten(0, 1)[keep] for k, v in columns.items()}
    aim = flat.pop("aim")
    rows = len(episode)
    about = About(
        name=f"maze {kind}",
        spaces={
            "obs": (maze.spaces.obs_dim,),
            "action": (2,),
            "action_low": -1.0,
            "action_high": 1.0,
        },
        provenance={"maze": repr(maze), "kind": kind, "noise": noise, "seed": seed},
    )
    return Transitions(
        **flat,
        episode=episode,
        extras=TensorDict({"aim": aim}, batch_size=[rows]),
        batch_size=[rows],  # type: ignore[call-arg]
    ).described(about)


def _walk(
    maze: PointMaze, kind: str, steps: int, noise: float, seed: int, copies: int
) -> dict[str, list[Tensor]]:
    """Columns of T times [copies, ...], until `steps` rows of finished episodes are there."""
    generator = torch.Generator().manual_seed(seed + 1)
    cells, guide = maze.cells("free"), Waypoints(maze.rows, margin=0.15)
    env = Batched(maze, copies, seed)
    obs = env.reset()

    def new_targets() -> Tensor:
        if kind == "demo":
            return env.state["goal"].clone()
        return cells[torch.randint(len(cells), (copies,), generator=generator)]

    target = new_targets()
    columns: dict[str, list[Tensor]] = {}
    finished, age = 0, torch.zeros(copies, dtype=torch.long)
    while finished < steps:
        mean = steer(maze, guide, env.state["p"], target)
        action = (mean + noise * torch.randn(copies, 2, generator=generator)).clamp(-1.0, 1.0)
        after = env.step(action)
        row = {
            "obs": obs,
            "action": action,
            "reward": after.reward,
            "next_obs": after.final_obs,
            "terminated": after.terminated,
            "truncated": after.truncated,
            "behavior_logp": clipped_normal(action, mean, noise).sum(-1),
            "aim": target,
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        done = after.terminated | after.truncated
        age = age + 1
        finished += int(age[done].sum())
        age = torch.where(done, 0, age)
        arrived = (maze.place(after.final_obs) - target).norm(dim=-1) < 0.3
        changes = done | (arrived if kind == "play" else torch.zeros_like(done))
        target = torch.where(changes[:, None], new_targets(), target)
        obs = after.obs
    return columns
