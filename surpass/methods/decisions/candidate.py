"""What a learner on decision logs is given, and what it gives: labeled policies.

A learner has a `name` and `fit(rows, fitted, seed) -> candidates`, with the same keys whatever the
rows; nominating one of them, by cross-validation inside the learning rows, is the job's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["Candidate", "Label", "Learner", "LearningRows", "reference_of"]


class LearningRows(Protocol):
    """A decision log in double precision: `context` [N, d], `action`, `reward`, `propensity` [N];
    rewards lie in [lo, hi].

    `reference` [N, A] is rho, or None where only the logged propensities are known; `offered` is
    what a policy is given as its reference: rho, else the mask of available actions, else None.
    """

    @property
    def context(self) -> Tensor: ...
    @property
    def action(self) -> Tensor: ...
    @property
    def reward(self) -> Tensor: ...
    @property
    def propensity(self) -> Tensor: ...
    @property
    def n_actions(self) -> int: ...
    @property
    def lo(self) -> float: ...
    @property
    def hi(self) -> float: ...
    @property
    def reference(self) -> Tensor | None: ...
    @property
    def offered(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Label:
    """What names a candidate in every stage and fold; candidates of one family differ in sharpness
    only."""

    key: str
    learner: str
    params: dict[str, Any]
    family: str = ""
    sharpness: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """A policy that was learned: its label, the policy, and the reward model used as its control
    variate.

    `critic(context) -> [N, A]` may be None: then the default closed-form model of the same rows
    takes its place.
    """

    label: Label
    policy: nn.Module
    critic: nn.Module | None = None


@runtime_checkable
class Learner(Protocol):
    """What takes part in the nomination."""

    @property
    def name(self) -> str: ...

    def fit(self, rows: Any, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        """Candidates learned from rows (`LearningRows`). `fitted` models rho where it is unknown;
        a policy that needs rho embeds it."""
        ...


@torch.no_grad()
def reference_of(rows: LearningRows, fitted: nn.Module | None) -> Tensor:
    """The reference's probabilities [N, A] in double precision: known, fitted, or else uniform."""
    if rows.reference is not None:
        return rows.reference.to(torch.float64)
    if fitted is not None:
        return fitted(rows.context, rows.offered).to(torch.float64)
    shape = (rows.context.shape[0], rows.n_actions)
    offered = rows.offered if rows.offered is not None else torch.ones(shape, dtype=torch.float64)
    return offered / offered.sum(-1, keepdim=True)
