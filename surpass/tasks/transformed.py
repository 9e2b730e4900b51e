"""Tasks around a frozen policy: its noise as the action, or what is added to its action.

Any online recipe then improves the frozen policy without touching its weights. What was learned
inside goes back out by `outward`, which gives a policy of the original task.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Acted, Policy
from surpass.parts import Nets, part
from surpass.policies.acting import InEnvironment
from surpass.tasks.protocol import Spaces, Stepped

__all__ = ["LatentTask", "ResidualTask", "latent_actions", "outward", "residual_actions"]


def outward(task: Any, policy: InEnvironment) -> InEnvironment:
    """A policy of a task in the terms of the task that was handed in (the same, where the task was
    not transformed)."""
    return task.outward(policy) if isinstance(task, LatentTask | ResidualTask) else policy


def _continuous(task: Any) -> Spaces:
    spaces: Spaces = task.spaces
    if spaces.discrete:
        raise InputError("a frozen policy is steered through continuous actions only")
    return spaces


def _frozen(base: Any, needs: str) -> Any:
    if not isinstance(base, nn.Module) or not hasattr(base, needs):
        raise InputError(f"the frozen policy has no {needs!r}; hand in a diffusion or flow net")
    return base.eval().requires_grad_(False)


def _in_units(action: Tensor, spaces: Spaces) -> Tensor:
    """From [-1, 1] to the task's bounds."""
    low, high = (torch.tensor(v, device=action.device) for v in (spaces.low, spaces.high))
    return low + 0.5 * (high - low) * (action.clamp(-1.0, 1.0) + 1.0)


class _Around:
    """A vector environment around another."""

    def __init__(self, env: Any, spaces: Spaces) -> None:
        self.env, self.spaces, self.n = env, spaces, env.n

    def close(self) -> None:
        """Close what is inside."""
        self.env.close()


# ----------------------------------------------------------------------------------------------
# noise as the action


class LatentTask:
    """A task whose action is the first noise w, |w_k| <= bound, of a deterministic sampler.

    Steering Your Diffusion Policy with Latent Space Reinforcement Learning (2025).

    Raises:
        InputError: when actions are discrete, the sampler is not deterministic, or gives actions of
            another size.
    """

    def __init__(self, task: Any, base: Any, bound: float = 1.5) -> None:
        self.task, self.base, self.bound = task, _frozen(base, "decode"), bound
        self.inside = _continuous(task)
        size = self.inside.action_dim
        gives = getattr(base, "size", size)
        if gives != size:
            raise InputError(f"the frozen policy gives {gives} numbers, the task takes {size}")
        self.spaces = replace(self.inside, low=(-bound,) * size, high=(bound,) * size)
        self.name = f"{getattr(task, 'name', 'task')} by noise"
        self.summary = "the first noise of a frozen policy is the action"

    def make(self, n: int, seed: int = 0, **settings: Any) -> LatentEnv:
        """n copies."""
        return LatentEnv(self.task.make(n, seed=seed, **settings), self)

    @torch.no_grad()
    def decoded(self, obs: Float[Tensor, "n d"], noise: Float[Tensor, "n k"]) -> Tensor:
        """The action in the task's units that noise stands for: the same one each time."""
        return _in_units(self.base.decode(obs, noise), self.inside)

    def outward(self, policy: InEnvironment) -> InEnvironment:
        """A policy over noise as one over the task's actions."""
        task = self

        class Decoded:
            def act(self, obs: Tensor, memory: Any = None) -> Acted:
                acted = policy.act(obs, memory)
                return Acted(task.base.decode(obs, acted.action), None, acted.memory)

            def given(self, **condition: Any) -> Policy:
                return task.outward(policy.given(**condition)).policy

        return InEnvironment(Decoded(), self.inside)


class LatentEnv(_Around):
    """The environment of a `LatentTask`."""

    def __init__(self, env: Any, task: LatentTask) -> None:
        super().__init__(env, task.spaces)
        self.task = task

    def reset(self, seed: int | None = None) -> Tensor:
        """Start anew."""
        self.obs = self.env.reset(seed)
        return self.obs

    def step(self, action: Float[Tensor, "n k"]) -> Stepped:
        """Play what the noise decodes to."""
        after = self.env.step(self.task.decoded(self.obs, action))
        self.obs = after.obs
        return after

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what happens next."""
        return {"env": self.env.state_dict(), "obs": self.obs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.env.load_state_dict(state["env"])
        self.obs = state["obs"].clone()


@part
def latent_actions(nets: Nets, task: Any, /, base: str = "base", bound: float = 1.5) -> Any:
    """The task whose action is the noise of the net `base`, within +-bound."""
    return LatentTask(task, nets[base], bound)


# ----------------------------------------------------------------------------------------------
# a correction as the action


class ResidualTask:
    """A task whose action rho corrects a frozen policy's: a = a_base + scale rho, |rho_k| <= 1.

    What is seen is the observation (clamped to +-3) and the pending base action. A base that
    proposes a chunk of actions is asked again when `execute` of them are played, or an episode
    begins. From Imitation to Refinement: Residual RL for Precise Visual Assembly (2024).
    """

    def __init__(self, task: Any, base: Any, scale: float = 0.1, execute: int = 1) -> None:
        self.task, self.base, self.scale = task, _frozen(base, "sample"), scale
        self.inside, self.execute = _continuous(task), execute
        size = self.inside.action_dim
        self.spaces = replace(
            self.inside, obs_dim=self.inside.obs_dim + size, low=(-1.0,) * size,
            high=(1.0,) * size,
        )  # fmt: skip
        self.name = f"{getattr(task, 'name', 'task')} by correction"
        self.summary = "a correction of a frozen policy is the action"

    def make(self, n: int, seed: int = 0, **settings: Any) -> ResidualEnv:
        """n copies."""
        return ResidualEnv(self.task.make(n, seed=seed, **settings), self)

    @torch.no_grad()
    def proposed(self, obs: Float[Tensor, "n d"]) -> Float[Tensor, "n h k"]:
        """A fresh chunk of base actions, in [-1, 1].

        Raises:
            InputError: when the chunk is shorter than what is executed of it.
        """
        size = self.inside.action_dim
        chunk = self.base.sample(obs)[0].reshape(obs.shape[0], -1, size)
        if chunk.shape[1] < self.execute:
            raise InputError(f"the base proposes {chunk.shape[1]} actions, not {self.execute}")
        return chunk

    def seen(self, obs: Tensor, pending: Float[Tensor, "n k"]) -> Float[Tensor, "n d+k"]:
        """What the correction is decided on."""
        return torch.cat([obs.clamp(-3.0, 3.0), pending], -1)

    def outward(self, policy: InEnvironment) -> InEnvironment:
        """The corrected base as a policy of the task; its memory holds the chunk and the place in
        it."""
        task = self

        class Corrected:
            def act(self, obs: Tensor, memory: Any = None) -> Acted:
                if memory is None or len(memory[0]) != len(obs):
                    chunk = task.proposed(obs)
                    place = torch.zeros(len(obs), dtype=torch.long, device=obs.device)
                else:
                    chunk, place = memory
                    anew = place >= task.execute
                    if bool(anew.any()):
                        chunk = torch.where(anew[:, None, None], task.proposed(obs), chunk)
                        place = torch.where(anew, 0, place)
                pending = chunk[torch.arange(len(obs), device=obs.device), place]
                rho = policy.act(task.seen(obs, pending)).action
                return Acted(pending + task.scale * rho, None, (chunk, place + 1))

            def remember(self, memory: Any, reward: Tensor, done: Tensor) -> Any:
                chunk, place = memory
                return chunk, torch.where(done, task.execute, place)  # a new episode, a new chunk

            def given(self, **condition: Any) -> Policy:
                return task.outward(policy.given(**condition)).policy

        return InEnvironment(Corrected(), self.inside)


class ResidualEnv(_Around):
    """The environment of a `ResidualTask`: it keeps each copy's pending chunk."""

    def __init__(self, env: Any, task: ResidualTask) -> None:
        super().__init__(env, task.spaces)
        self.task = task

    def reset(self, seed: int | None = None) -> Tensor:
        """Start anew, with fresh chunks."""
        obs = self.env.reset(seed)
        self.chunk = self.task.proposed(obs)
        self.place = torch.zeros(self.n, dtype=torch.long, device=obs.device)
        return self.task.seen(obs, self.pending())

    def pending(self) -> Float[Tensor, "n k"]:
        """The base action that comes next, of each copy."""
        return self.chunk[torch.arange(self.n, device=self.chunk.device), self.place]

    def step(self, action: Float[Tensor, "n k"]) -> Stepped:
        """Play the pending action with its correction."""
        task = self.task
        moved = self.pending() + task.scale * action.clamp(-1.0, 1.0)
        after = self.env.step(_in_units(moved, task.inside))
        done = after.terminated | after.truncated
        self.place = self.place + 1
        last = task.seen(after.final_obs, self._following(after.final_obs))
        anew = done | (self.place >= task.execute)
        if bool(anew.any()):
            fresh = task.proposed(after.obs)
            self.chunk = torch.where(anew[:, None, None], fresh, self.chunk)
            self.place = torch.where(anew, 0, self.place)
        seen = task.seen(after.obs, self.pending())
        return Stepped(seen, after.reward, after.terminated, after.truncated, last)

    def _following(self, obs: Tensor) -> Tensor:
        """The base action that would come next, had the episode not ended."""
        within = (self.place < self.task.execute)[:, None]
        index = self.place.clamp(max=self.chunk.shape[1] - 1)
        kept = self.chunk[torch.arange(self.n, device=obs.device), index]
        if bool(within.all()):
            return kept
        return torch.where(within, kept, self.task.proposed(obs)[:, 0])

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what happens next."""
        return {"env": self.env.state_dict(), "chunk": self.chunk, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.env.load_state_dict(state["env"])
        self.chunk, self.place = state["chunk"].clone(), state["place"].clone()


@part
def residual_actions(
    nets: Nets, task: Any, /, base: str = "base", scale: float = 0.1, execute: int = 1
) -> Any:
    """The task whose action is a correction of the net `base`, times `scale`."""
    return ResidualTask(task, nets[base], scale, execute)
