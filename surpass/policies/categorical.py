"""Policies over discrete actions from values of actions: softmax, greedy, one action; and how any
decision policy is asked.

A decision policy is a module with `forward(context [N, d], reference [N, A]) -> probabilities
[N, A]`. The reference is the policy that must not be fallen behind: an action that it never takes
(probability 0, which is also how unavailable actions are given) is never taken.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.policies.action_values import ActionValues
from surpass.policies.tilted import (
    Capped,
    Constant,
    Mixture,
    Multinomial,
    Tilted,
    policy_class,
    rebuild,
    specification,
)

__all__ = [
    "DecisionPolicy", "Greedy", "OneAction", "ReferencePolicy", "Softmax", "WithReference", "draw",
    "n_inputs_of", "needs_reference", "predict", "probabilities", "sample",
]  # fmt: skip


class DecisionPolicy(nn.Module):
    """The base of the policies here: `forward(context [N, d], reference [N, A]) -> [N, A]`.

    `config` holds plain JSON values; with the class name and the state dict it is the policy.
    """

    config: dict[str, Any]

    @abstractmethod
    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N A"]: ...


class _OverValues(DecisionPolicy):
    """A policy that looks at a net's values, and at the reference as its base or for its support
    only."""

    def __init__(self, values: ActionValues | dict[str, Any], base: str) -> None:
        super().__init__()
        if base not in ("reference", "uniform"):
            raise InputError(f"base is 'reference' or 'uniform', not {base!r}")
        self.values: ActionValues = rebuild(values) if isinstance(values, dict) else values  # type: ignore[assignment]
        self.base = base


@policy_class
class Softmax(_OverValues):
    """pi(a|x) ∝ base(a|x) exp(values(x)_a / temperature); base is the reference, or uniform on the
    reference's support."""

    def __init__(
        self, values: ActionValues | dict[str, Any], temperature: float = 1.0,
        base: str = "reference",
    ) -> None:  # fmt: skip
        super().__init__(values, base)
        if not temperature > 0:
            raise InputError(f"temperature is positive, not {temperature!r}")
        self.temperature = float(temperature)

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]
        inner = specification(self.values)
        return {"values": inner, "temperature": self.temperature, "base": self.base}

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N A"]:
        logits = self.values(context).to(torch.float64) / self.temperature
        reference = reference.to(logits.dtype)
        inside = reference > 0
        if self.base == "reference":
            logits = logits + torch.where(inside, reference, torch.ones_like(reference)).log()
        return torch.softmax(logits.masked_fill(~inside, float("-inf")), dim=-1)


@policy_class
class Greedy(_OverValues):
    """All probability on the best value within the reference's support; exact ties share it, in
    proportion to the base."""

    def __init__(self, values: ActionValues | dict[str, Any], base: str = "reference") -> None:
        super().__init__(values, base)

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]
        return {"values": specification(self.values), "base": self.base}

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N A"]:
        values = self.values(context).to(torch.float64)
        reference = reference.to(values.dtype)
        inside = reference > 0
        values = values.masked_fill(~inside, float("-inf"))
        best = (values >= values.amax(-1, keepdim=True)) & inside
        base = reference if self.base == "reference" else torch.ones_like(reference)
        share = torch.where(best, base, torch.zeros_like(base))
        return share / share.sum(-1, keepdim=True)


@policy_class
class OneAction(DecisionPolicy):
    """The same action in every context; the reference where that never takes it."""

    def __init__(self, action: int, n_actions: int) -> None:
        super().__init__()
        if not 0 <= action < n_actions:
            raise InputError(f"action {action} is not one of {n_actions} actions")
        self.action, self.n_actions = int(action), int(n_actions)
        self.config = {"action": self.action, "n_actions": self.n_actions}

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N A"]:
        numbers = torch.arange(self.n_actions, device=reference.device)
        chosen = (numbers == self.action).to(reference.dtype).expand_as(reference)
        possible = reference[:, self.action : self.action + 1] > 0
        return torch.where(possible, chosen, reference)


@policy_class
class ReferencePolicy(DecisionPolicy):
    """The reference itself."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {}

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N A"]:
        return reference.clone()


@policy_class
class WithReference(DecisionPolicy):
    """A policy that carries its own reference, so that it can act where nobody knows the
    reference's probabilities; a given one only says which actions are on offer (those above 0)."""

    def __init__(
        self, policy: nn.Module | dict[str, Any], reference: nn.Module | dict[str, Any]
    ) -> None:
        super().__init__()
        self.policy = rebuild(policy) if isinstance(policy, dict) else policy
        self.reference = rebuild(reference) if isinstance(reference, dict) else reference
        if needs_reference(self.reference):
            raise InputError("a reference that is carried must not need another")

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            "policy": specification(self.policy), "reference": specification(self.reference),
        }  # fmt: skip

    def forward(
        self, context: Float[Tensor, "N d"], reference: Float[Tensor, "N A"] | None = None
    ) -> Float[Tensor, "N A"]:
        return self.policy(context, self.reference(context, reference))


def needs_reference(policy: nn.Module) -> bool:
    """Whether the policy's probabilities depend on more of the reference than its support."""
    if isinstance(policy, Tilted | Capped):
        return policy.fitted is None
    if isinstance(policy, Mixture):
        return any(needs_reference(p) for p in policy.policies)
    if isinstance(policy, _OverValues):
        return policy.base == "reference"
    return not isinstance(policy, Constant | Multinomial | OneAction | WithReference)


def n_inputs_of(policy: nn.Module) -> int:
    """How many context columns the policy reads; 0 where it reads none."""
    found = 0
    for module in policy.modules():
        config = getattr(module, "config", None)
        for name in ("n_inputs", "n_features"):
            size = config.get(name) if isinstance(config, dict) else None
            found = max(found, size if isinstance(size, int) else 0)
    return found


# ----------------------------------------------------------------------------------------------
# how a policy is asked


@torch.no_grad()
def probabilities(
    policy: nn.Module,
    context: Float[Tensor, "N d"],
    reference: Float[Tensor, "N A"],
    available: Bool[Tensor, "N A"] | None = None,
) -> Float[Tensor, "N A"]:
    """The probability of every action, in double precision; unavailable actions get 0 and the
    others are scaled to sum to 1.

    Raises:
        InputError: when a row's reference takes none of its available actions, or shapes differ.
    """
    if reference.dim() != 2 or reference.shape[0] != context.shape[0]:
        raise InputError(
            f"{context.shape[0]} contexts, but reference probabilities of shape "
            f"{list(reference.shape)}; give one row of action probabilities per context"
        )
    reference = reference.to(torch.float64)
    if available is not None:
        if available.shape != reference.shape:
            raise InputError(
                f"available has shape {list(available.shape)}, the reference "
                f"{list(reference.shape)}; give one flag per action"
            )
        reference = reference * available
    total = reference.sum(-1, keepdim=True)
    if not bool((total > 0).all()):
        row = int((total[:, 0] <= 0).nonzero()[0, 0])
        raise InputError(
            f"row {row}: the reference takes none of the available actions; leave the row out, "
            "or give a reference that covers it"
        )
    out = policy(context, reference / total).to(torch.float64)
    if available is not None:
        out = out * available
        kept = out.sum(-1, keepdim=True)
        # a policy that ignores the reference may have put everything on what is not on offer
        out = torch.where(kept > 0, out / kept.clamp_min(1e-300), reference / total)
    return out


def predict(
    policy: nn.Module,
    context: Float[Tensor, "N d"],
    reference: Float[Tensor, "N A"],
    available: Bool[Tensor, "N A"] | None = None,
) -> Int[Tensor, "N"]:
    """The most probable action of every row (the lowest number among equals)."""
    return probabilities(policy, context, reference, available).argmax(-1)


def sample(
    policy: nn.Module,
    context: Float[Tensor, "N d"],
    reference: Float[Tensor, "N A"],
    available: Bool[Tensor, "N A"] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """Draw an action per row: `(action, propensity)`, the propensity being the probability with
    which it was drawn."""
    return draw(probabilities(policy, context, reference, available), generator)


def draw(
    chances: Float[Tensor, "N A"], generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """Draw an action per row by inversion, in double precision: `(action, its probability)`.

    An action of probability 0 is never drawn, whatever the rounding.
    """
    exact = chances.to(torch.float64)
    exact = exact / exact.sum(-1, keepdim=True)
    cumulative = exact.cumsum(-1)
    u = torch.rand(exact.shape[0], 1, dtype=torch.float64, generator=generator)
    action = (cumulative <= u * cumulative[:, -1:]).sum(-1)
    last = ((exact > 0) * torch.arange(exact.shape[-1])).amax(-1)
    action = torch.minimum(action, last)
    return action, exact.gather(-1, action[:, None])[:, 0]
