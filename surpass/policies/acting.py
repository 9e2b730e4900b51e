"""From trained nets, the policy that acts: what a recipe's `act` and `explore` say.

Nets live on standardized observations and actions in [-1, 1]; `InEnvironment` gives the policy that
speaks the environment's units.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.forms import Acted, Policy, Spaces
from surpass.parts import Nets, part

__all__ = [
    "InEnvironment",
    "NetPolicy",
    "best_joint",
    "best_of",
    "greedy",
    "mean",
    "noisy",
    "none",
    "sampled",
    "walked",
]


class NetPolicy:
    """A policy that is a function of observations [B, d] in the nets' units."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """Choose for a batch of observations."""
        action, logp = self.choose(obs)
        return Acted(action, logp, memory)

    def given(self, **condition: Any) -> Policy:
        """The same policy: it has no condition."""
        return self


@part
def mean(nets: Nets, roles: Any, /, pi: str = "pi") -> Policy:
    """The policy's central action: its mean, or the most probable one."""
    return NetPolicy(lambda obs: (nets[pi](obs), None))


@part
def none(nets: Nets, roles: Any, /) -> Policy:
    """Nobody: what is trained does not act. Acting raises an InputError."""

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        raise InputError("this stage trains no policy; train the stages after it as well")

    return NetPolicy(choose)


@part
def sampled(nets: Nets, roles: Any, /, pi: str = "pi") -> Policy:
    """An action drawn from the policy, with its log-probability."""
    return NetPolicy(lambda obs: nets[pi].sample(obs))


@part
def walked(nets: Nets, roles: Any, /, pi: str = "pi") -> Policy:
    """What a policy decides on in several steps of its own, which `Acted.extras` tells: `obs`,
    `action`, `behavior_logp` and `mask` of a denoising path, [B, F, ...]."""

    class Walker(NetPolicy):
        def act(self, obs: Tensor, memory: Any = None) -> Acted:
            end, path = nets[pi].walk(obs)
            return Acted(end, None, memory, path)

    if not hasattr(nets[pi], "walk"):
        raise InputError(
            f"{type(nets[pi]).__name__} has no path of its own: hand in policy=..., such as "
            "noisy(flow), or begin with a stage that trains one"
        )
    return Walker(None)


@part
def noisy(nets: Nets, roles: Any, /, scale: float = 0.1, pi: str = "pi") -> Policy:
    """The policy's action plus Gaussian noise, clipped to [-1, 1]."""

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        action = nets[pi](obs)
        return (action + scale * torch.randn_like(action)).clamp(-1.0, 1.0), None

    return NetPolicy(choose)


@part
def greedy(nets: Nets, roles: Any, /, q: str = "q") -> Policy:
    """The discrete action of the largest value, averaged over the ensemble."""
    return NetPolicy(lambda obs: (nets[q].all(obs).mean(0).argmax(-1), None))


@part
def best_joint(nets: Nets, roles: Any, /, q: str = "q") -> Policy:
    """The best joint action of several agents, each its own best."""
    return NetPolicy(lambda obs: (nets[q].greedy(obs), None))


@part
def best_of(
    nets: Nets, roles: Any, /, pi: str = "pi", q: str = "q", n: int = 10, over: str = "min",
    lowest: bool = False,
) -> Policy:  # fmt: skip
    """The best of n actions drawn from the policy: the highest min_i Q_i (or "max" or "mean" over
    the ensemble); the lowest, where q is a cost."""

    def choose(obs: Tensor) -> tuple[Tensor, None]:
        action, _ = nets[pi].sample(obs, n)
        values = getattr(nets[q](obs, action), _OVER[over])(0)
        best = (-values if lowest else values).argmax(0)
        index = best.reshape(1, -1, *(1,) * (action.dim() - 2)).expand(1, *action.shape[1:])
        return action.gather(0, index)[0], None

    return NetPolicy(choose)


_OVER = {"min": "amin", "max": "amax", "mean": "mean"}


class InEnvironment(nn.Module):
    """A policy of nets, in the units of the environment.

    Observations are standardized with the statistics that the nets were trained on, actions are
    mapped from [-1, 1] to their bounds, and log-probabilities are those of the mapped actions.
    """

    def __init__(
        self,
        policy: Policy,
        spaces: Spaces,
        mean: Float[Tensor, "d"] | None = None,
        std: Float[Tensor, "d"] | None = None,
    ) -> None:
        super().__init__()
        self.policy, self.spaces = policy, spaces
        self.mean: Tensor | None
        self.std: Tensor | None
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("low", torch.tensor(spaces.low))
        self.register_buffer("high", torch.tensor(spaces.high))

    @torch.no_grad()
    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """Choose for a batch of observations [B, d], or for one [d]."""
        one = obs.dim() == 1
        obs = obs[None] if one else obs
        if self.mean is not None and self.std is not None:
            obs = (obs - self.mean) / self.std
        acted = self.policy.act(obs, memory)
        if not self.spaces.discrete:
            half = 0.5 * (self.high - self.low)
            acted.action = self.low + half * (acted.action.clamp(-1.0, 1.0) + 1.0)
            if acted.logp is not None:
                acted.logp = acted.logp - half.log().sum()
        if one:
            acted.action = acted.action[0]
            acted.logp = None if acted.logp is None else acted.logp[0]
        return acted

    @torch.no_grad()
    def remember(self, memory: Any, reward: Tensor, done: Tensor) -> Any:
        """The memory after a step that paid `reward` [B] and ended the episodes in `done`; policies
        that keep none have nothing to remember."""
        told = getattr(self.policy, "remember", None)
        return memory if told is None else told(memory, reward, done)

    def forward(self, obs: Tensor) -> Tensor:
        return self.act(obs).action

    def predict(self, obs: Any) -> Any:
        """The action for observations [B, d] or [d], as a numpy array."""
        device = self.low.device
        return (
            self.act(torch.as_tensor(obs, dtype=torch.float32, device=device)).action.cpu().numpy()
        )

    def given(self, **condition: Any) -> InEnvironment:
        """The same policy under a condition."""
        return InEnvironment(self.policy.given(**condition), self.spaces, self.mean, self.std)
