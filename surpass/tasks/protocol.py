"""What a task is: a problem whose answer can be checked, and batched environments in two shapes.

A `Simulator` is pure: explicit state in, state out, all randomness handed in as `noise`, so that
`step` can be compiled, differentiated and vmapped. A `VectorEnv` is what rollouts drive: it holds n
copies, resets each copy that ends, and keeps the observation in which it ended. `Batched` makes the
second from the first; `surpass.tasks.gym` makes the second from any Gymnasium environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Spaces

__all__ = [
    "Batched",
    "Simulator",
    "Spaces",
    "State",
    "Step",
    "Stepped",
    "Task",
    "VectorEnv",
    "step_and_reset",
]

State = dict[str, Tensor]


class Step(NamedTuple):
    """What a pure step returns; `obs` is the true next observation, also at an end."""

    state: State
    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class Stepped(NamedTuple):
    """What a vector environment returns.

    `obs` [n, d] is what to act on next (a fresh start where the episode ended); `final_obs` [n, d]
    is the true next
    observation, which is what a value function bootstraps from when the end was a truncation.
    """

    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor


@runtime_checkable
class Simulator(Protocol):
    """A pure batched environment.

    `reset(n, generator)` draws n starts. `step(state, action, noise)` moves all of them; `noise`
    [n, noise_dim] is
    uniform on [0, 1), needed only where `noise_dim` > 0.
    """

    @property
    def spaces(self) -> Spaces: ...

    @property
    def noise_dim(self) -> int: ...

    def reset(self, n: int, generator: torch.Generator | None = None) -> tuple[State, Tensor]: ...

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> Step: ...


@runtime_checkable
class VectorEnv(Protocol):
    """n copies of an environment that reset themselves.

    It may have `notes`, columns [n] by name that say more of the step just made, such as the number
    of the `task` that each copy is in; logs keep them.
    """

    n: int
    spaces: Spaces

    def reset(self, seed: int | None = None) -> Tensor: ...

    def step(self, action: Tensor) -> Stepped: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Task(Protocol):
    """A problem with a known answer.

    What else it has depends on its kind: `make(n, seed)` opens n copies of its environment (a
    `VectorEnv`), `prompts(n)` and `verify(prompt, response)` are those of a `LanguageTask`, and
    `truth(policy)` is the exact worth of a policy where that can be known.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...


def step_and_reset(
    simulator: Simulator,
    state: State,
    action: Tensor,
    fresh: tuple[State, Tensor],
    noise: Tensor | None = None,
) -> tuple[State, Stepped]:
    """One pure step, after which every copy that ended is replaced by its row of `fresh`."""
    after = simulator.step(state, action, noise)
    done = after.terminated | after.truncated
    fresh_state, fresh_obs = fresh
    new = {k: _where(done, fresh_state[k], v) for k, v in after.state.items()}
    obs = _where(done, fresh_obs, after.obs)
    return new, Stepped(obs, after.reward, after.terminated, after.truncated, after.obs)


def _where(done: Tensor, fresh: Tensor, old: Tensor) -> Tensor:
    return torch.where(done.reshape(done.shape + (1,) * (old.dim() - 1)), fresh, old)


class Batched:
    """n copies of a simulator as a `VectorEnv`, with its own generator, on any device.

    Args:
        simulator: the pure environment.
        n: number of copies.
        seed: of the starts and the noise.
        device: where state and observations live.
        compile: compile the step (worth it from a few hundred steps on).
        name: as it appears in logs.
    """

    def __init__(
        self,
        simulator: Simulator,
        n: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        compile: bool = False,
        name: str = "",
    ) -> None:
        if n < 1:
            raise InputError(f"at least one copy of an environment is needed, got n={n}")
        self.simulator, self.n, self.spaces = simulator, n, simulator.spaces
        self.name = name or type(simulator).__name__
        self.generator = torch.Generator(device)
        self.state: State = {}

        def fused(
            state: State, action: Tensor, fresh: tuple[State, Tensor], noise: Tensor | None
        ) -> tuple[State, Stepped]:
            return step_and_reset(simulator, state, action, fresh, noise)

        # on a GPU asking whether a copy ended costs more than a start for every copy; on a CPU less
        self._fused: Callable[..., tuple[State, Stepped]] | None = None
        self._step: Callable[..., Step] = simulator.step
        if self.generator.device.type != "cpu":
            self._fused = torch.compile(fused, dynamic=False) if compile else fused
        elif compile:
            self._step = torch.compile(lambda s, a, e: simulator.step(s, a, e), dynamic=False)
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start all copies anew; the first observations [n, d]."""
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state, obs = self.simulator.reset(self.n, self.generator)
        return obs

    def step(self, action: Tensor) -> Stepped:
        """Move all copies by one step.

        Raises:
            InputError: when the actions have the wrong shape or kind.
        """
        self._check(action)
        noise = None
        if self.simulator.noise_dim:
            shape = (self.n, self.simulator.noise_dim)
            noise = torch.rand(shape, generator=self.generator, device=self.generator.device)
        if self._fused is not None:
            fresh = self.simulator.reset(self.n, self.generator)
            self.state, stepped = self._fused(self.state, action, fresh, noise)
            return stepped
        after = self._step(self.state, action, noise)
        self.state, obs = after.state, after.obs
        ended = (after.terminated | after.truncated).nonzero()[:, 0]
        if len(ended):
            fresh_state, fresh_obs = self.simulator.reset(len(ended), self.generator)
            self.state = {k: v.index_put((ended,), fresh_state[k]) for k, v in after.state.items()}
            obs = obs.index_put((ended,), fresh_obs)
        return Stepped(obs, after.reward, after.terminated, after.truncated, after.obs)

    def _check(self, action: Tensor) -> None:
        wanted: tuple[int, ...] = (self.n, self.spaces.action_dim)
        if self.spaces.discrete:
            agents = self.spaces.extras.get("agents", 0)
            wanted = (self.n, agents) if agents else (self.n,)
        if tuple(action.shape) != wanted:
            raise InputError(f"actions of shape {wanted} expected, got {tuple(action.shape)}")
        if self.spaces.discrete == action.is_floating_point():
            kind = "whole numbers" if self.spaces.discrete else "floating-point numbers"
            raise InputError(f"actions must be {kind}, got {action.dtype}")

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what happens next."""
        return {
            "state": {k: v.clone() for k, v in self.state.items()},
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.state = {k: v.clone() for k, v in state["state"].items()}
        self.generator.set_state(state["generator"])

    def close(self) -> None:
        """Nothing is held open."""
