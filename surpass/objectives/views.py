"""What losses and scores see: one typed record per kind of part, whatever the domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Query", "Side", "Sides", "Steps"]


@dataclass(frozen=True)
class Steps:
    """What a trust rule sees, per decision [B, T]; robot actions and tokens alike.

    Three log-probabilities are the rule: `logp` of the policy being trained, `anchor_logp` where
    trust is centered,
    `behavior_logp` of what collected the data. `log_ratio` is filled by the form's ratio, `loss`
    by its trust rule.

    Attributes:
        mask: 1 where the policy decided; entries elsewhere never change a value or a gradient.
        ref_logp: of the reference policy, where a form names one.
        turn: number of the turn, or -1 outside turns. group: number of the prompt or start, [B].
        source: number of the source of each sequence, [B], named by `sources`.
        extras: statistics and columns that parts asked for.
    """

    logp: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    anchor_logp: Float[Tensor, "B T"] | None = None
    behavior_logp: Float[Tensor, "B T"] | None = None
    ref_logp: Float[Tensor, "B T"] | None = None
    log_ratio: Any = None
    advantage: Any = None
    loss: Any = None
    turn: Int[Tensor, "B T"] | None = None
    group: Int[Tensor, "B"] | None = None
    source: Int[Tensor, "B"] | None = None
    sources: tuple[str, ...] = ("own",)
    entropy: Any = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def filled(self, **values: Any) -> Steps:
        """A copy with some fields set."""
        return replace(self, **values)


@dataclass(frozen=True)
class Side:
    """What a loss on scored sequences sees, per sequence [B].

    `delta` is the log-ratio to the reference, reduced over the decisions by the form's ratio;
    `steps` has what sums
    forget; `reward` [B] is the score or label; `length` [B] counts decisions.
    """

    delta: Float[Tensor, "B"]
    length: Float[Tensor, "B"]
    steps: Steps
    reward: Any = None
    group: Int[Tensor, "B"] | None = None


@dataclass(frozen=True)
class Sides:
    """What a preference loss sees, per pair [B]."""

    chosen: Side
    rejected: Side

    @property
    def margin(self) -> Float[Tensor, "B"]:
        """How much further the policy moved from the reference toward the chosen than toward the
        rejected."""
        return self.chosen.delta - self.rejected.delta

    @property
    def swapped(self) -> Sides:
        """The same pairs with the label reversed."""
        return Sides(self.rejected, self.chosen)


@dataclass(frozen=True)
class Query:
    """What an estimator's score sees: N logged decisions, a target policy, and out-of-fold
    predictions.

    Attributes:
        action: the logged action, [N] of A. reward, [N]. propensity: of the logged action, [N].
        target: the target policy's probabilities, [N, A].
        q: the predicted reward of every action by a model that did not see the row, [N, A].
        reference: the reference policy's probabilities, [N, A] (the logging policy's own, where
            that is it).
        propensities: of every action under the logging policy, [N, A], where logged.
        weights: a weight per row, [N], all 1; what `linearized` differentiates.
        low, high: the range of the reward.
        extras: columns and further predictions (cluster of each action, instrument, episode, time).
    """

    action: Int[Tensor, "N"]
    reward: Float[Tensor, "N"]
    propensity: Float[Tensor, "N"]
    target: Float[Tensor, "N A"]
    q: Any = None
    reference: Any = None
    propensities: Any = None
    context: Any = None
    weights: Any = None
    low: float = 0.0
    high: float = 1.0
    available: Bool[Tensor, "N A"] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def logged_target(self) -> Float[Tensor, "N"]:
        """The target policy's probability of the logged action."""
        return self.target.gather(-1, self.action[:, None])[:, 0]

    @cached_property
    def ratio(self) -> Float[Tensor, "N"]:
        """The importance ratio pi(a|x) / mu(a|x) of the logged action."""
        return self.logged_target / self.propensity

    @cached_property
    def logged_q(self) -> Float[Tensor, "N"]:
        """The predicted reward of the logged action."""
        return self.q.gather(-1, self.action[:, None])[:, 0]

    @cached_property
    def direct(self) -> Float[Tensor, "N"]:
        """The predicted reward of the target policy, sum over actions of pi q."""
        return torch.einsum("na,na->n", self.target, self.q)  # a product and a sum in one pass

    def rows(self, index: Tensor | slice) -> Query:
        """The same query for some of the rows."""

        def cut(value: Any) -> Any:
            return value[index] if isinstance(value, Tensor) and value.dim() else value

        cut_fields = {k: cut(getattr(self, k)) for k in self.__dataclass_fields__ if k != "extras"}
        return Query(**cut_fields, extras={k: cut(v) for k, v in self.extras.items()})


def ones_like_rows(query: Query) -> Tensor:
    """The weight of every row: `query.weights`, or 1."""
    return torch.ones_like(query.reward) if query.weights is None else query.weights
