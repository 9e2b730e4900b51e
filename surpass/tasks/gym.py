"""The bridge to Gymnasium, both ways.

`from_gym("Hopper-v5", 8)` gives any Gymnasium environment the batched protocol. Importing this
module registers the batched environments as `surpass/Pendulum-v0` and so on, single
(`gymnasium.make`) and vectorized (`gymnasium.make_vec`);
`gymnasium.make("surpass.tasks.gym:surpass/PointMass-v0")` does both at once.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surpass.errors import InputError, MissingExtra, extra, nearest
from surpass.tasks.control import Acrobot, CartPole, MountainCar, Pendulum
from surpass.tasks.maze import PointMaze
from surpass.tasks.point import PointMass
from surpass.tasks.protocol import Batched, Simulator, Spaces, Stepped

__all__ = ["EnvCrash", "GymBatch", "SimulatorEnv", "SimulatorVectorEnv", "from_gym", "register"]

gymnasium: Any = extra("gymnasium")


class EnvCrash(RuntimeError):
    """A copy of an environment raised: which copy, in which step, and its traceback."""


def from_gym(id: str, n: int, seed: int = 0, **settings: Any) -> GymBatch:
    """n copies of a Gymnasium environment as a `VectorEnv`.

    Args:
        id: as in `gymnasium.make`.
        n: number of copies.
        seed: the copies are seeded with what `numpy.random.SeedSequence(seed)` spawns.
        settings: for `gymnasium.make`.

    Raises:
        InputError: when there is no such environment, or its spaces are not supported.
        MissingExtra: when what it needs is not installed.
    """
    return GymBatch(id, lambda: _make(id, settings), n, seed)


def _make(id: str, settings: dict[str, Any]) -> Any:
    try:
        if "mujoco" in str(gymnasium.spec(id).entry_point):
            extra("mujoco").set_mju_user_warning(_warned)
        return gymnasium.make(id, disable_env_checker=True, **settings)
    except gymnasium.error.DependencyNotInstalled as error:
        name = "control" if "mujoco" in str(error).lower() else "the package that brings it"
        how = "pip install 'surpass[control]'" if name == "control" else f"install {name}"
        raise MissingExtra(f"{id} cannot be made: {error}; {how}") from error
    except gymnasium.error.UnregisteredEnv as error:
        hint = nearest(id, list(gymnasium.registry))
        raise InputError(
            f"no environment {id!r} is installed{hint}; MuJoCo's come with "
            "pip install 'surpass[control]', others with their own packages"
        ) from error
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
        raise InputError(f"{id} cannot be made: {error}") from error


def _warned(message: str) -> None:
    """MuJoCo's warnings as Python's, where it would write MUJOCO_LOG.TXT into the working folder;
    what Gymnasium's own models still use of old attributes is not the user's concern."""
    level = logging.DEBUG if "is deprecated" in message else logging.WARNING
    logging.getLogger("mujoco").log(level, message)


class GymBatch:
    """n copies of a Gymnasium environment, stepped one after the other in this process.

    Observations are flat float32 vectors (discrete ones one-hot, composite ones flattened); actions
    are clipped to the bounds. MuJoCo and classic-control copies can be saved and restored exactly
    (`state_dict`).
    """

    def __init__(self, name: str, make: Callable[[], Any], n: int, seed: int = 0) -> None:
        if n < 1:
            raise InputError(f"at least one copy of an environment is needed, got n={n}")
        self.name, self.n, self._open = name, n, make
        self.envs = [make() for _ in range(n)]
        first = self.envs[0]
        self._space = first.observation_space
        self._plain = isinstance(self._space, gymnasium.spaces.Box) and len(self._space.shape) == 1
        self.spaces = _spaces(name, first)
        self._low = np.array(self.spaces.low, dtype=np.float32)
        self._high = np.array(self.spaces.high, dtype=np.float32)
        self._start = int(getattr(first.action_space, "start", 0))
        self._broken: set[int] = set()
        self.reset(seed)

    def _flat(self, obs: Any) -> np.ndarray:
        return obs if self._plain else gymnasium.spaces.flatten(self._space, obs)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start all copies anew, [n, d]; copies that crashed are made again."""
        for i in self._broken:
            self.envs[i] = self._open()
        self._broken.clear()
        seeds: list[int | None] = [None] * self.n
        if seed is not None:
            seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.n)]
        obs = [self._guarded(i, lambda env, s=s: env.reset(seed=s)[0]) for i, s in enumerate(seeds)]
        self.obs = np.stack([self._flat(o) for o in obs]).astype(np.float32)
        self.age = np.zeros(self.n, dtype=np.int64)
        return torch.from_numpy(self.obs.copy())

    def _guarded(self, i: int, do: Callable[[Any], Any]) -> Any:
        try:
            return do(self.envs[i])
        except Exception as error:
            self._broken.add(i)
            age = getattr(self, "age", np.zeros(self.n))[i]
            raise EnvCrash(
                f"copy {i} of {self.n} of {self.name} crashed in step {int(age) + 1} of its "
                f"episode: {error!r}; reset() makes it again\n{traceback.format_exc()}"
            ) from error

    def step(self, action: Tensor) -> Stepped:
        """Move all copies by one step.

        Raises:
            InputError: when the actions have the wrong shape.
            EnvCrash: when a copy raises.
        """
        given = self._actions(action)
        obs = np.empty_like(self.obs)
        reward = np.empty(self.n, dtype=np.float32)
        terminated, truncated = np.zeros((2, self.n), dtype=bool)
        for i in range(self.n):
            a = given[i]
            o, reward[i], terminated[i], truncated[i], _ = self._guarded(
                i, lambda env, a=a: env.step(a)
            )
            obs[i] = self._flat(o)
        self.age += 1
        done = terminated | truncated
        final = obs
        if done.any():
            final = obs.copy()
            for i in done.nonzero()[0]:
                obs[i] = self._flat(self._guarded(int(i), lambda env: env.reset()[0]))
            self.age[done] = 0
        self.obs = obs
        t = torch.from_numpy
        # the caller may keep what it gets, so `self.obs` is handed out as a copy
        return Stepped(
            t(obs.copy()), t(reward), t(terminated), t(truncated & ~terminated), t(final)
        )

    def _actions(self, action: Tensor) -> Any:
        wanted = (self.n,) if self.spaces.discrete else (self.n, self.spaces.action_dim)
        if tuple(action.shape) != wanted:
            raise InputError(f"actions of shape {wanted} expected, got {tuple(action.shape)}")
        a = action.detach().cpu().numpy()
        if self.spaces.discrete:
            return (a + self._start).tolist()
        return np.clip(a, self._low, self._high, dtype=np.float32, casting="unsafe")

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what happens next: physics, clocks and random generators.

        Raises:
            InputError: when the environment is neither MuJoCo's nor classic control.
        """
        return {
            "physics": torch.stack([torch.as_tensor(_physics(e, self.name)) for e in self.envs]),
            "obs": torch.from_numpy(self.obs.copy()),
            "age": torch.from_numpy(self.age.copy()),
            "single": torch.tensor([_is_single(e) for e in self.envs]),
            "random": [json.dumps(_random(e).bit_generator.state) for e in self.envs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.obs = state["obs"].numpy().copy()
        self.age = state["age"].numpy().copy()
        for i, env in enumerate(self.envs):
            env.reset()
            _random(env).bit_generator.state = json.loads(state["random"][i])
            kind = np.float32 if state["single"][i] else np.float64
            _restore(env, state["physics"][i].numpy().astype(kind), int(self.age[i]))

    def close(self) -> None:
        """Close all copies."""
        for env in self.envs:
            env.close()


def _spaces(name: str, env: Any) -> Spaces:
    box, discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
    size = gymnasium.spaces.flatdim(env.observation_space)
    horizon = env.spec.max_episode_steps if env.spec is not None else None
    space = env.action_space
    if isinstance(space, discrete):
        return Spaces(size, n_actions=int(space.n), horizon=horizon)
    if isinstance(space, box) and len(space.shape) == 1:
        low, high = (tuple(float(x) for x in bound) for bound in (space.low, space.high))
        return Spaces(size, action_dim=space.shape[0], low=low, high=high, horizon=horizon)
    raise InputError(f"{name} has actions {space}; discrete actions and flat vectors are supported")


def _random(env: Any) -> Any:
    return env.unwrapped.np_random


def _physics(env: Any, name: str) -> np.ndarray:
    inner = env.unwrapped
    if hasattr(inner, "data") and hasattr(inner, "model"):
        mujoco: Any = extra("mujoco")
        what = mujoco.mjtState.mjSTATE_INTEGRATION
        out = np.empty(mujoco.mj_stateSize(inner.model, what))
        mujoco.mj_getState(inner.model, inner.data, out, what)
        return out
    if isinstance(getattr(inner, "state", None), np.ndarray | tuple | list):
        return np.asarray(inner.state, dtype=np.float64)
    raise InputError(
        f"the state of {name} cannot be saved; only MuJoCo and classic control can go on exactly"
    )


def _is_single(env: Any) -> bool:
    """Whether the state is kept in float32 right now (classic control mixes both)."""
    return getattr(getattr(env.unwrapped, "state", None), "dtype", None) == np.float32


def _restore(env: Any, physics: np.ndarray, age: int) -> None:
    inner = env.unwrapped
    if hasattr(inner, "data") and hasattr(inner, "model"):
        mujoco: Any = extra("mujoco")
        mujoco.mj_setState(inner.model, inner.data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
    else:
        inner.state = physics
        if hasattr(inner, "steps_beyond_terminated"):
            inner.steps_beyond_terminated = None
    layer = env
    while layer is not inner:
        if hasattr(layer, "_elapsed_steps"):
            layer._elapsed_steps = age
        layer = layer.env


# ----------------------------------------------------------------------- ours, as Gymnasium's


class SimulatorEnv(gymnasium.Env):
    """One copy of a pure simulator as a `gymnasium.Env`."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.observation_space, self.action_space = _gym_spaces(simulator.spaces)
        self._generator = torch.Generator()
        self._state: dict[str, Tensor] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        """A new start."""
        super().reset(seed=seed)
        self._generator.manual_seed(int(self.np_random.integers(2**31)))
        self._state, obs = self.simulator.reset(1, self._generator)
        return obs[0].numpy().astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step."""
        noise = None
        if self.simulator.noise_dim:
            noise = torch.rand(1, self.simulator.noise_dim, generator=self._generator)
        after = self.simulator.step(self._state, torch.as_tensor(action)[None], noise)
        self._state = after.state
        return (
            after.obs[0].numpy().astype(np.float32),
            float(after.reward[0]),
            bool(after.terminated[0]),
            bool(after.truncated[0]),
            {},
        )


class SimulatorVectorEnv(gymnasium.vector.VectorEnv):
    """n copies of a pure simulator as a Gymnasium vector environment (SAME_STEP resets)."""

    def __init__(self, simulator: Simulator, num_envs: int = 1) -> None:
        self.batch = Batched(simulator, num_envs)
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = _gym_spaces(simulator.spaces)
        batched = gymnasium.vector.utils.batch_space
        self.observation_space = batched(self.single_observation_space, num_envs)
        self.action_space = batched(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict]:
        """New starts."""
        return self.batch.reset(seed).numpy().astype(np.float32), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """One step of all copies; `final_obs` in the infos as Gymnasium has it."""
        after = self.batch.step(torch.as_tensor(actions))
        done = (after.terminated | after.truncated).numpy()
        infos: dict[str, Any] = {}
        if done.any():
            infos = {"final_obs": after.final_obs.numpy(), "_final_obs": done}
        return (
            after.obs.numpy().astype(np.float32),
            after.reward.numpy(),
            after.terminated.numpy(),
            after.truncated.numpy(),
            infos,
        )


def _gym_spaces(s: Spaces) -> tuple[Any, Any]:
    spaces = gymnasium.spaces
    obs = spaces.Box(-np.inf, np.inf, (s.obs_dim,), np.float32)
    if s.discrete:
        return obs, spaces.Discrete(s.n_actions)
    low, high = (np.array(bound, dtype=np.float32) for bound in (s.low, s.high))
    return obs, spaces.Box(low, high, dtype=np.float32)


_REGISTERED: dict[str, Callable[..., Any]] = {
    "Pendulum": Pendulum,
    "CartPole": CartPole,
    "MountainCar": MountainCar,
    "Acrobot": Acrobot,
    "PointMass": PointMass,
    "PointMaze": PointMaze,
}


def register() -> list[str]:
    """Register the batched environments with Gymnasium; their ids."""
    ids = []
    for name, simulator in _REGISTERED.items():
        id = f"surpass/{name}-v0"
        ids.append(id)
        if id in gymnasium.registry:
            continue

        def one(simulator: Any = simulator, render_mode: None = None, **settings: Any) -> Any:
            return SimulatorEnv(simulator(**settings))

        def many(simulator: Any = simulator, num_envs: int = 1, **settings: Any) -> Any:
            return SimulatorVectorEnv(simulator(**settings), num_envs)

        gymnasium.register(id, entry_point=one, vector_entry_point=many)
    return ids


register()
