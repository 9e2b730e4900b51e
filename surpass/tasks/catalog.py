"""The tasks by name: `tasks()` lists them, `task("pendulum")` or `task("Hopper-v5")` gets one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError, atomic, nearest
from surpass.tasks import language, preference, quest, science_world, tables
from surpass.tasks.control import Acrobot, CartPole, MountainCar, Pendulum
from surpass.tasks.hop_search import HopSearch
from surpass.tasks.linear_quadratic import LinearQuadratic
from surpass.tasks.maze import MAZES, PointMaze
from surpass.tasks.motifs import Motifs
from surpass.tasks.point import PointMass
from surpass.tasks.protocol import Batched, Simulator, Spaces, Task, VectorEnv
from surpass.tasks.proxy import Proxied
from surpass.tasks.tabular import TabularMDP, Values
from surpass.tasks.unnamed import UnnamedStrings
from surpass.tasks.worlds import GRIDS, grid_world

__all__ = [
    "ControlTask",
    "GymTask",
    "TabularTask",
    "normalized",
    "opened",
    "reference_scores",
    "task",
    "tasks",
    "write_reference",
]


@dataclass(frozen=True, eq=False)
class ControlTask:
    """A task whose environment is a pure batched simulator.

    Attributes:
        name: of the task.
        summary: what it is, in a line.
        simulator: the pure environment.
    """

    name: str
    summary: str
    simulator: Simulator

    @property
    def spaces(self) -> Spaces:
        """What goes in and out."""
        return self.simulator.spaces

    def make(
        self, n: int, seed: int = 0, device: str | torch.device = "cpu", compile: bool = False
    ) -> VectorEnv:
        """n copies that reset themselves."""
        return Batched(self.simulator, n, seed, device, compile, name=self.name)

    def score(self, returns: Tensor) -> Tensor:
        """Returns as normalized scores: 0 random, 100 expert."""
        return normalized(self.name, returns)


@dataclass(frozen=True, eq=False)
class TabularTask(ControlTask):
    """A task that is a `TabularMDP`, so that the worth of a policy is known exactly."""

    mdp: TabularMDP = field(kw_only=True)

    def truth(self, pi: Float[Tensor, "S A"]) -> Values:
        """The exact value of a policy, given by its action probabilities."""
        return self.mdp.evaluate(pi)


@dataclass(frozen=True, eq=False)
class GymTask:
    """A task from Gymnasium, made when it is opened.

    Attributes:
        name: its id, or what to call it.
        settings: for `gymnasium.make`.
        build: makes one copy, where it is not made from its id.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    build: Callable[[], Any] | None = None

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        return f"{self.name} from Gymnasium"

    @property
    def spaces(self) -> Spaces:
        """What goes in and out (opens one copy to see)."""
        env = self.make(1)
        try:
            return env.spaces
        finally:
            env.close()

    def make(
        self, n: int, seed: int = 0, device: str | torch.device = "cpu", compile: bool = False
    ) -> VectorEnv:
        """n copies that reset themselves; always in this process and on the CPU."""
        from surpass.tasks.gym import GymBatch, from_gym

        if self.build is not None:
            return GymBatch(self.name, self.build, n, seed)
        return from_gym(self.name, n, seed, **self.settings)

    def score(self, returns: Tensor) -> Tensor:
        """Returns as normalized scores: 0 random, 100 expert."""
        return normalized(self.name, returns)


_SIMULATORS: dict[str, tuple[str, Callable[..., Simulator]]] = {
    "pendulum": ("swing a pendulum up and hold it (Pendulum-v1, batched)", Pendulum),
    "linear-quadratic": (
        "hold a noisy number near zero, cheaply; the best average reward is known",
        LinearQuadratic,
    ),
    "cart-pole": ("keep a pole upright on a cart (CartPole-v1, batched)", CartPole),
    "mountain-car": ("drive a weak car uphill (MountainCarContinuous-v0, batched)", MountainCar),
    "acrobot": ("lift the tip of two links (Acrobot-v1, batched)", Acrobot),
    "proxy": ("generate 16 numbers of a class, paid by a proxy of what was meant", Proxied),
    "motifs": ("write sequences of letters, paid for how often a pair stands in them", Motifs),
    "point": ("POINT, a double integrator to be brought to the origin in 60 steps", PointMass),
}

_MAZE_SETTINGS: dict[str, dict[str, Any]] = {
    "u": {},
    "t": {"scale": 0.15, "horizon": 100},
    "two-routes": {"scale": 0.15, "horizon": 100},
    "four-rooms": {"scale": 0.2},
    "large": {"scale": 0.15, "horizon": 400},
}

_TEXT: dict[str, Callable[..., Any]] = {
    "text-quest": quest.text_quest,
    "science-world": science_world.science_world,
}

_LANGUAGE: dict[str, Callable[..., Any]] = {
    "modsum-lm": language.ModSum,
    "countdown-lite": language.Countdown,
    "digit-strings": language.DigitStrings,
    "unnamed-strings": UnnamedStrings,
    "hop-search": HopSearch,
    "sumtriple-table": tables.sumtriple_table,
    "lock-table": tables.lock_table,
    "tree-table": tables.random_tree,
    "preference-bandit": preference.preference_bandit,
    "preference-game": preference.preference_game,
}


def tasks() -> dict[str, str]:
    """The names of the tasks, one line each. Beyond them, any Gymnasium id is a task."""
    out = {name: line for name, (line, _) in _SIMULATORS.items()}
    for name in MAZES:
        out[f"point-maze-{name}"] = f"a point in the maze {name!r}, sparse reward at the goal"
    for name in GRIDS:
        out[f"grid-{name}"] = f"the grid world {name!r}, tabular, with exact values"
    for name, make in {**_TEXT, **_LANGUAGE}.items():
        out[name] = make().summary
    return out


def task(name: str, **settings: Any) -> Any:
    """The task of a name, or of a Gymnasium id.

    Args:
        name: one of `tasks()`, or an id such as `Hopper-v5`.
        settings: of the task, such as `gravity=20.0` for `pendulum`, `slip=0.2` for a grid.

    Raises:
        InputError: when there is no such task or setting.
    """
    try:
        return _task(name, settings)
    except TypeError as error:
        raise InputError(f"task {name}: {str(error).split('() ')[-1]}") from error


def opened(place: Any) -> Any:
    """A task from its name or id, from a bare simulator, from a function that makes a Gymnasium
    environment, or from one that Gymnasium has made; what is a task already stays as it is.

    Raises:
        InputError: for an environment of which no further copies can be made.
    """
    if isinstance(place, str):
        return task(place)
    if hasattr(place, "make"):
        return place
    if isinstance(place, Simulator):
        return ControlTask(type(place).__name__, "a simulator", place)
    if hasattr(place, "observation_space") and not isinstance(place, type):
        return _made(place)
    if isinstance(place, type | FunctionType | MethodType | partial):
        return GymTask(getattr(place, "__name__", "environment"), build=place)
    return place


def _made(env: Any) -> GymTask:
    """Further copies of an environment, by what Gymnasium noted when it made it."""
    import gymnasium

    kind, spec = type(env).__name__, getattr(env, "spec", None)
    if spec is None or hasattr(env, "num_envs"):
        raise InputError(
            f"{kind} cannot be copied, and several are needed: give a function that makes a single "
            f"one, such as task=lambda: {kind}()"
        )
    return GymTask(spec.id, build=lambda: gymnasium.make(spec))


def _task(name: str, settings: dict[str, Any]) -> Task:
    if name in _SIMULATORS:
        line, make = _SIMULATORS[name]
        return ControlTask(name, line, make(**settings))
    kind, _, rest = name.partition("-")
    if kind == "grid" and rest in GRIDS:
        return _grid(name, rest, settings)
    if name.startswith("point-maze-") and name[11:] in MAZES:
        maze = PointMaze(name[11:], **{**_MAZE_SETTINGS[name[11:]], **settings})
        return ControlTask(name, tasks()[name], maze)
    if name in _TEXT:
        return _TEXT[name](**settings)
    if name in _LANGUAGE:
        return _LANGUAGE[name](**settings)
    if re.search(r"-v\d+$", name):
        return GymTask(name, settings)
    raise InputError(
        f"no task {name!r}{nearest(name, list(tasks()))}; see surpass tasks list, "
        "or give a Gymnasium id such as Hopper-v5"
    )


def _grid(name: str, layout: str, settings: dict[str, Any]) -> TabularTask:
    cliff = {"step_reward": -1.0, "goal_reward": -1.0} if layout == "cliff" else {}
    slip = {"slip": 2 / 3} if layout == "lake" else {}
    mdp = grid_world(layout, **{"gamma": 1.0, "horizon": 100, **cliff, **slip, **settings})
    steps = None if mdp.horizon is not None else 100
    return TabularTask(name, tasks()[name], mdp.as_env(steps), mdp=mdp)


# -------------------------------------------------------------------------------- normalized scores

_SCORES = Path(__file__).with_name("scores.json")
_SAME = {"Pendulum-v1": "pendulum", "CartPole-v1": "cart-pole"}


def reference_scores(path: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Per task the mean returns that stand for 0 (`random`) and 100 (`expert`), and whence."""
    file = Path(path) if path is not None else _SCORES
    return json.loads(file.read_text()) if file.exists() else {}


def write_reference(
    name: str, random: float, expert: float, path: str | Path | None = None, **how: Any
) -> None:
    """Store the reference returns of a task.

    Args:
        name: of the task.
        random: mean return of uniform actions.
        expert: mean return of the expert.
        path: the file; by default the one that comes with the package.
        how: what was measured, such as `episodes=4000, expert_policy="PD controller"`.

    Raises:
        InputError: when the expert is not better.
    """
    if not expert > random:
        raise InputError(f"{name}: the expert ({expert:.4g}) must beat random ({random:.4g})")
    known = reference_scores(path)
    known[name] = {"random": random, "expert": expert, **how}
    with atomic(Path(path) if path is not None else _SCORES) as file:
        file.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")


def normalized(name: str, returns: Tensor, path: str | Path | None = None) -> Tensor:
    """100 (return - random) / (expert - random).

    Raises:
        InputError: when the task has no reference returns yet.
    """
    known = reference_scores(path)
    name = _SAME.get(name, name)
    if name not in known:
        raise InputError(f"no reference returns for {name}; they come with: surpass zoo build")
    low, high = known[name]["random"], known[name]["expert"]
    return 100 * (returns - low) / (high - low)
