"""What a target policy does on logged episodes: probabilities of discrete actions, or continuous
actions, whatever form the caller has it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError

__all__ = ["Target", "target_of"]


@dataclass(frozen=True)
class Target:
    """A policy that is evaluated on logged episodes.

    Attributes:
        choose: observations [M, d] to probabilities [M, A], or, where `actions` is 0, to continuous
            actions [M, k], drawn where the policy is stochastic.
        actions: how many discrete actions; 0 where they are continuous.
        logp: the log-density [M] of continuous actions [M, k] at observations; None where the
            policy has none (a deterministic one).
    """

    choose: Callable[[Tensor], Tensor]
    actions: int
    logp: Callable[[Tensor, Tensor], Tensor] | None = None


@torch.no_grad()
def target_of(policy: Any, actions: int, name: str = "policy") -> Target:
    """A policy as it is evaluated.

    Args:
        policy: a function of observations (probabilities, or continuous actions); an object with
            `probabilities(obs)`; or what training gives (`act(obs)`, or `.policy`), which counts as
            deterministic where its actions are discrete and it shows no logits. A continuous policy
            with `logp(obs, action)` has densities.
        actions: of the log: 0 where they are continuous.

    Raises:
        InputError: when it is none of these, or for the other kind of actions.
    """
    if hasattr(policy, "nets") and hasattr(policy, "policy"):
        policy = _trained(policy)
    own: Any = getattr(policy, "probabilities", None)
    if callable(own):
        if not actions:
            raise InputError(f"{name} chooses among discrete actions, and the log's are continuous")
        return Target(lambda obs: cast(Tensor, own(obs.reshape(len(obs), -1))), actions)
    act: Any = getattr(policy, "act", None)
    if callable(act):

        def chosen(obs: Tensor) -> Tensor:
            return cast(Any, act(obs.reshape(len(obs), -1).float())).action

        if actions:
            return Target(lambda obs: _one_hot(chosen(obs), actions), actions)
        return Target(chosen, 0, getattr(policy, "logp", None))
    if not callable(policy):
        raise InputError(
            f"{name} is a {type(policy).__name__}; give a policy folder, a function of "
            "observations, or what surpass.train returns"
        )
    return Target(cast(Any, policy), actions, getattr(policy, "logp", None))


def _one_hot(action: Tensor, actions: int) -> Float[Tensor, "M A"]:
    return torch.nn.functional.one_hot(action.long(), actions).double()


@dataclass(frozen=True)
class _Softmax:
    """The stochastic policy of a trained net of logits."""

    net: Any
    mean: Tensor | None
    std: Tensor | None

    @torch.no_grad()
    def probabilities(self, obs: Tensor) -> Float[Tensor, "M A"]:
        x = obs.reshape(len(obs), -1).float()
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        return self.net.logits(x).double().softmax(-1)


def _trained(found: Any) -> Any:
    """A trained run as a policy: stochastic where its policy net gives logits."""
    net = found.nets["pi"] if "pi" in getattr(found.form, "nets", {}) else None
    if found.spaces.discrete and hasattr(net, "logits"):
        return _Softmax(net, found.policy.mean, found.policy.std)
    return found.policy
