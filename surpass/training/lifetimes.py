"""Whole lifetimes of actor-critic agents, many at once: how meta-learning scores candidates.

Agents [P] are one stack of nets, their environments one batch of a simulator; each is trained from
scratch by an objective that its candidate parameters decide. All that is random is drawn for one
half and used by both, so that the members of an antithetic pair live the same luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from surpass.errors import InputError
from surpass.forms import adam
from surpass.objectives.advantage import gae
from surpass.objectives.views import Steps
from surpass.policies.stochastic import TanhMLP
from surpass.tasks.protocol import Simulator, step_and_reset
from surpass.training.optimizers import Moments, adam_numbers, adam_update
from surpass.training.rollouts import SequenceRows

__all__ = ["Lifetime"]

Objective = Callable[[Tensor, Steps], Float[Tensor, "B T"]]
Stack = dict[str, Tensor]


@dataclass(frozen=True)
class Lifetime:
    """How an agent lives: `updates` batches of `envs` x `horizon` steps, each gone through `epochs`
    times in `minibatches` pieces.

    `value`, `entropy`: coefficients of the critic's loss and of the entropy bonus. `lr` falls to 0
    over the life. Gradients of each agent are held to norm 0.5.
    """

    envs: int = 16
    horizon: int = 32
    updates: int = 20
    epochs: int = 4
    minibatches: int = 4
    lr: float = 3e-3
    gamma: float = 0.99
    lam: float = 0.95
    value: float = 0.5
    entropy: float = 0.0
    hidden: tuple[int, ...] = (32,)

    def run(
        self, simulator: Simulator, objective: Objective, candidates: Float[Tensor, "P n"],
        seed: int = 0,
    ) -> Float[Tensor, "P"]:  # fmt: skip
        """The mean over time of the return of the episode that ended last, of each life.

        Args:
            objective: from a candidate [n] and `Steps` [B, 1] to the loss of every decision.
            candidates: P of them, even; i and i + P/2 share their luck.

        Raises:
            InputError: when actions are continuous, or candidates are odd in number.
        """
        if not simulator.spaces.discrete:
            raise InputError("lifetimes are lived with discrete actions")
        if len(candidates) % 2:
            raise InputError(f"{len(candidates)} candidates have no pairs: an even number")
        steps = self.envs * self.horizon
        if steps % self.minibatches:
            raise InputError(f"{steps} steps do not make {self.minibatches} pieces")
        return _Lives(self, simulator, objective, candidates, seed).go()


class _Lives:
    """One run: P agents from birth to death."""

    def __init__(
        self, life: Lifetime, simulator: Simulator, objective: Objective, candidates: Tensor,
        seed: int,
    ) -> None:  # fmt: skip
        self.life, self.simulator, self.objective = life, simulator, objective
        self.candidates, self.many = candidates, len(candidates)
        self.generator = torch.Generator().manual_seed(seed)
        spaces = simulator.spaces
        sizes = (spaces.obs_dim, *life.hidden)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            half = self.many // 2
            actors = [TanhMLP((*sizes, spaces.n_actions), 0.01) for _ in range(half)] * 2
            critics = [TanhMLP((*sizes, 1), 1.0) for _ in range(half)] * 2
        self.actor, self.critic = actors[0], critics[0]
        self.nets = {f"actor.{k}": v.detach() for k, v in stack_module_state(actors)[0].items()}
        self.nets |= {f"critic.{k}": v.detach() for k, v in stack_module_state(critics)[0].items()}
        zeros = {k: torch.zeros_like(v) for k, v in self.nets.items()}
        self.moments = Moments(zeros, dict(zeros))

    # ------------------------------------------------------------------------------------------
    # nets

    def _called(self, which: str, nets: Stack, obs: Float[Tensor, "P B d"]) -> Tensor:
        module = self.actor if which == "actor" else self.critic
        own = {k.removeprefix(f"{which}."): v for k, v in nets.items() if k.startswith(which)}
        return vmap(lambda p, x: functional_call(module, p, (x,))[0])(own, obs)

    def _lucky(self, *shape: int) -> Tensor:
        """Uniform numbers [P, ...], the same for both halves."""
        half = torch.rand(self.many // 2, *shape, generator=self.generator)
        return torch.cat([half, half])

    def _fresh(self) -> tuple[Any, Tensor]:
        state, obs = self.simulator.reset(self.many // 2 * self.life.envs, self.generator)
        return {k: torch.cat([v, v]) for k, v in state.items()}, torch.cat([obs, obs])

    # ------------------------------------------------------------------------------------------
    # a life

    def go(self) -> Float[Tensor, "P"]:
        """The score of each life."""
        life, score, count = self.life, torch.zeros(self.many), 0
        self.state, self.obs = self._fresh()
        self.running = torch.zeros(self.many * life.envs)
        self.last = torch.zeros(self.many * life.envs)
        for update in range(life.updates):
            batch, lived = self._collect()
            score += lived
            rate = life.lr * (1.0 - update / life.updates)
            for _ in range(life.epochs):
                for piece in self._pieces():
                    count += 1
                    self._descend({k: v[:, piece] for k, v in batch.items()}, rate, count)
        return score / life.updates

    def _pieces(self) -> tuple[Tensor, ...]:
        order = torch.randperm(self.life.envs * self.life.horizon, generator=self.generator)
        return order.chunk(self.life.minibatches)

    @torch.no_grad()
    def _collect(self) -> tuple[dict[str, Tensor], Float[Tensor, "P"]]:
        """A batch [P, B, ...] with advantages, and the mean return of the time."""
        life, rows, lived = self.life, [], torch.zeros(self.many)
        wide = (self.many, life.envs)
        for _ in range(life.horizon):
            obs = self.obs.reshape(*wide, -1)
            logp = self._called("actor", self.nets, obs).log_softmax(-1)
            chance = logp.exp().cumsum(-1)
            action = (chance < self._lucky(life.envs, 1)).sum(-1).clamp(max=logp.shape[-1] - 1)
            noise = None
            if self.simulator.noise_dim:
                noise = self._lucky(life.envs, self.simulator.noise_dim).flatten(0, 1)
            self.state, after = step_and_reset(
                self.simulator, self.state, action.flatten(), self._fresh(), noise
            )
            self.obs = after.obs
            done = after.terminated | after.truncated
            self.running = self.running + after.reward
            self.last = torch.where(done, self.running, self.last)
            self.running = torch.where(done, torch.zeros_like(self.running), self.running)
            lived += self.last.reshape(wide).mean(-1) / life.horizon
            column = {
                "obs": obs, "action": action,
                "logp": logp.gather(-1, action[..., None])[..., 0],
                "next_obs": after.final_obs.reshape(*wide, -1),
                "reward": after.reward.reshape(wide),
                "terminated": after.terminated.reshape(wide),
                "truncated": after.truncated.reshape(wide),
            }  # fmt: skip
            rows.append(column)
        batch = {k: torch.stack([r[k] for r in rows], 2) for k in rows[0]}  # [P, E, T, ...]
        batch |= self._judged(batch)
        kept = ("obs", "action", "logp", "advantage", "target")
        return {k: batch[k].flatten(1, 2) for k in kept}, lived

    def _judged(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Generalized advantages, whitened over the batch of each life, and targets of V."""
        shape = batch["reward"].shape
        names = ("reward", "terminated", "truncated")
        columns = {k: batch[k].flatten(0, 1) for k in names}
        columns["mask"] = torch.ones_like(columns["reward"])
        for name, seen in (("value", "obs"), ("next_value", "next_obs")):
            value = self._called("critic", self.nets, batch[seen].flatten(1, 2))
            columns[name] = value.reshape(columns["reward"].shape)
        found: Any = gae(self.life.gamma, self.life.lam)(cast(Any, SequenceRows(columns)))
        a = found["advantage"].reshape(shape)
        std, mean = torch.std_mean(a, (1, 2), keepdim=True)
        return {
            "advantage": (a - mean) / (std + 1e-8),
            "target": found["value_target"].reshape(shape),
        }

    def _descend(self, rows: dict[str, Tensor], rate: float, count: int) -> None:
        """One step of Adam for every agent, each with a gradient norm of at most 0.5."""
        nets = {k: v.requires_grad_(True) for k, v in self.nets.items()}
        logits = self._called("actor", nets, rows["obs"])
        logp = logits.log_softmax(-1)
        own = logp.gather(-1, rows["action"][..., None])[..., 0]

        def surrogate(candidate: Tensor, logp: Tensor, anchor: Tensor, a: Tensor) -> Tensor:
            mask = torch.ones_like(logp)[:, None]
            steps = Steps(logp=logp[:, None], anchor_logp=anchor[:, None], mask=mask,
                          log_ratio=(logp - anchor)[:, None], advantage=a[:, None])  # fmt: skip
            return self.objective(candidate, steps).mean()

        loss = vmap(surrogate)(self.candidates, own, rows["logp"], rows["advantage"])
        value = self._called("critic", nets, rows["obs"])[..., 0]
        loss = loss + self.life.value * (value - rows["target"]).square().mean(-1)
        if self.life.entropy:
            loss = loss + self.life.entropy * (logp.exp() * logp).sum(-1).mean(-1)
        found = torch.autograd.grad(loss.sum(), list(nets.values()))
        slopes = dict(zip(nets, found, strict=True))
        norm = sum(g.square().flatten(1).sum(-1) for g in slopes.values())
        scale = (0.5 / (norm.sqrt() + 1e-6)).clamp(max=1.0)  # type: ignore[union-attr]
        slopes = {k: g * scale.reshape(-1, *(1,) * (g.dim() - 1)) for k, g in slopes.items()}
        rule = adam(rate, eps=1e-5)
        rate_now, step, correction = torch.tensor(adam_numbers(rule, 0, count)).unbind()
        with torch.no_grad():
            plain = {k: v.detach() for k, v in nets.items()}
            self.nets, self.moments = adam_update(
                rule, plain, slopes, self.moments, (rate_now, step, correction)
            )
