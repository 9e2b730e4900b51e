"""What losses and scores see: one typed record per kind of part, whatever the domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Query", "Side", "Sides", "Steps", "TrajectoryQuery"]


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
        extras: columns and further predictions (cluster of each action, instrument, episode, time);
            `action_features` [A, k], a numpy array, where the log describes its actions.
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
        return _cut(self, index)


@dataclass(frozen=True)
class TrajectoryQuery:
    """What an estimator for episodes sees: N logged episodes of at most T decisions, padded.

    Attributes:
        action, reward, propensity: [N, T], the logged action, its reward and its probability under
            the behavior policy.
        target: the target policy's probabilities in the visited states, [N, T, A]; where actions
            are continuous its density of the logged ones, [N, T], or None where it has none.
        mask: 1 where the behavior policy decided, [N, T]; ones first, then zeros.
        gamma: discount.
        q: predicted value of every action under the target, by a model that did not see the
            episode, [N, T, A]; of what is still to come, discounted from that step on. Where
            actions are continuous [N, T, 2]: of the logged action, and of the target's.
        context: observations, [N, T, d].
        weights: a weight per episode, [N], all 1; what `linearized` differentiates.
        cut: 1 where the last decision of an episode did not end it (truncation), [N]; None: all
            ended.
        beyond, beyond_target, beyond_q: what was observed behind the last decision, [N, d], the
            target's probabilities there, [N, A], and the predicted values, [N, A].
        extras: columns and further predictions (bins, marginal ratios, instrument), [N, T, ...].
    """

    action: Tensor
    reward: Float[Tensor, "N T"]
    propensity: Any
    target: Any
    mask: Float[Tensor, "N T"]
    gamma: float = 1.0
    q: Any = None
    context: Any = None
    weights: Any = None
    cut: Any = None
    beyond: Any = None
    beyond_target: Any = None
    beyond_q: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def discrete(self) -> bool:
        """Whether actions are numbers of a list."""
        return self.action.dim() == 2

    def later(self, now: Float[Tensor, "N T ..."], beyond: Any = None) -> Tensor:
        """What stands one step later: the next column inside an episode, `beyond` [N, ...] behind a
        last step that was cut, 0 behind one that ended it."""
        wide = (*self.mask.shape, *(1,) * (now.dim() - 2))
        inside = self.mask.reshape(wide)
        out = torch.cat((now[:, 1:] * inside[:, 1:], torch.zeros_like(now[:, :1])), 1)
        if self.cut is not None and beyond is not None:
            step = torch.arange(self.mask.shape[1], device=self.mask.device)
            last = (step == self.mask.sum(1, keepdim=True) - 1) & (self.cut[:, None] > 0)
            out = torch.where(last.reshape(wide), beyond[:, None].to(out.dtype), out)
        return out

    @cached_property
    def logged_target(self) -> Float[Tensor, "N T"]:
        """The target policy's probability of the logged action."""
        return self.target.gather(-1, self.action[..., None])[..., 0] if self.discrete else (
            self.target)  # fmt: skip

    @cached_property
    def ratio(self) -> Float[Tensor, "N T"]:
        """pi(a|s) / mu(a|s) of every decision; 1 behind the end."""
        one = torch.ones_like(self.propensity)
        inside = self.mask > 0
        return torch.where(
            inside, self.logged_target / torch.where(inside, self.propensity, one), one
        )

    @cached_property
    def discount(self) -> Float[Tensor, "T"]:
        """gamma^t."""
        steps = torch.arange(self.reward.shape[1], dtype=self.reward.dtype)
        return torch.as_tensor(self.gamma, dtype=self.reward.dtype) ** steps

    @cached_property
    def paid(self) -> Float[Tensor, "N"]:
        """The discounted return of every logged episode."""
        return (self.mask * self.reward) @ self.discount

    @cached_property
    def logged_q(self) -> Float[Tensor, "N T"]:
        """The predicted value of the logged action."""
        if not self.discrete:
            return self.q[..., 0]
        return self.q.gather(-1, self.action[..., None])[..., 0]

    @cached_property
    def direct(self) -> Float[Tensor, "N T"]:
        """The predicted value of the visited state, sum over actions of pi q."""
        return (self.target * self.q).sum(-1) if self.discrete else self.q[..., 1]

    def rows(self, index: Tensor | slice) -> TrajectoryQuery:
        """The same query for some of the episodes."""
        return _cut(self, index)


Record = TypeVar("Record", Query, TrajectoryQuery)


def _cut(record: Record, index: Tensor | slice) -> Record:
    """Some of the rows of every column."""

    def cut(value: Any) -> Any:
        return value[index] if isinstance(value, Tensor) and value.dim() else value

    columns = {k: cut(getattr(record, k)) for k in record.__dataclass_fields__ if k != "extras"}
    return type(record)(**columns, extras={k: cut(v) for k, v in record.extras.items()})


def ones_like_rows(query: Query | TrajectoryQuery) -> Tensor:
    """The weight of every row: `query.weights`, or 1."""
    if query.weights is None:
        return query.reward.new_ones(len(query.reward))
    return query.weights
