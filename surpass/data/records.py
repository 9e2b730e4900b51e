"""The records: what every row of a log has. What belongs to the log as a whole is in `about`.

`Decisions`, `Transitions`, `Sequences` and `Pairs` are tensorclasses: typed, indexable and
batched, so that
`log[rows]`, `log.to("cuda")` and `torch.cat` work on them whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Bool, Float, Int
from tensordict import NonTensorData, TensorDict, tensorclass
from torch import Tensor

__all__ = ["About", "Decisions", "Pairs", "Sequences", "Transitions"]


@dataclass(frozen=True)
class About:
    """What is true of a log as a whole.

    Attributes:
        name: where the log came from, as a person would say it.
        actions: the names of the discrete actions, in the order of their numbers; empty when
            continuous.
        action_features: a description of each action, [A, k].
        spaces: shapes and bounds, such as `{"obs": (17,), "action_low": -1.0, "action_high": 1.0}`.
        names: the names of columns, such as `{"context": ("age", "city=Paris")}`.
        encoder: turns raw context columns into `context`; saved with every policy that was learned
            from the log.
        provenance: how the log was made: source, checksum, seed, policy.
    """

    name: str = ""
    actions: tuple[str, ...] = ()
    action_features: Tensor | None = None
    spaces: dict[str, Any] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    encoder: Any = None
    provenance: dict[str, Any] = field(default_factory=dict)


_NOTHING = About()


class _Described:
    """Attaches `about` to a record; slices keep it."""

    if TYPE_CHECKING:  # what @tensorclass adds, for the type checker

        def __init__(self, *, batch_size: Any = None, **columns: Any) -> None: ...
        def __getitem__(self, index: Any) -> Self: ...
        def __len__(self) -> int: ...
        def to(self, *where: Any, **how: Any) -> Self: ...
        def clone(self) -> Self: ...

        batch_size: torch.Size
        device: torch.device | None

    @property
    def about(self) -> About:
        held = getattr(self, "note", None)
        held = getattr(held, "data", held)
        return held if isinstance(held, About) else _NOTHING

    def described(self, about: About) -> Self:
        """The same record, described by `about`."""
        self.note = NonTensorData(about, batch_size=self.batch_size)
        return self


@tensorclass
class Decisions(_Described):
    """One decision a row: `context` [N, d], discrete `action` [N], `reward` [N], `propensity` [N]
    of the logged action.

    `propensities` [N, A] where the whole row was logged; `available` [N, A] where not every action
    was on offer.
    """

    context: Float[Tensor, "N d"]
    action: Int[Tensor, "N"]
    reward: Float[Tensor, "N"]
    propensity: Float[Tensor, "N"]
    propensities: Float[Tensor, "N A"] | None = None
    available: Bool[Tensor, "N A"] | None = None
    position: Int[Tensor, "N"] | None = None
    cost: Float[Tensor, "N"] | None = None
    time: Float[Tensor, "N"] | None = None
    instrument: Float[Tensor, "N"] | None = None
    group: Int[Tensor, "N"] | None = None
    extras: TensorDict | None = None
    note: Any = None

    @property
    def n_actions(self) -> int:
        """How many actions there are: named in `about`, else the columns of `propensities`, else
        the largest seen."""
        if self.about.actions:
            return len(self.about.actions)
        if self.propensities is not None:
            return self.propensities.shape[-1]
        return int(self.action.max()) + 1

    def sequences(self) -> Sequences:
        """The same decisions as sequences of length 1."""
        n = self.batch_size[0]
        return Sequences(
            action=self.action[:, None],
            mask=torch.ones(n, 1),
            reward=self.reward[:, None],
            behavior_logp=self.propensity.log()[:, None],
            obs=self.context[:, None, :],
            group=self.group,
            batch_size=[n],  # pyright: ignore[reportCallIssue]
        ).described(self.about)


@tensorclass
class Transitions(_Described):
    """One step a row. Bootstrapping stops at `terminated`, never at `truncated`.

    `obs` [N, ...], `action` [N, k] or [N], `reward` [N], `next_obs` [N, ...], `terminated`,
    `truncated` [N] bool,
    `episode` [N]: rows of one episode are consecutive and in order.
    """

    obs: Float[Tensor, "N ..."]
    action: Tensor
    reward: Float[Tensor, "N"]
    next_obs: Float[Tensor, "N ..."]
    terminated: Bool[Tensor, "N"]
    truncated: Bool[Tensor, "N"]
    episode: Int[Tensor, "N"]
    behavior_logp: Float[Tensor, "N"] | None = None
    available: Bool[Tensor, "N A"] | None = None
    cost: Float[Tensor, "N"] | None = None
    goal: Float[Tensor, "N g"] | None = None
    instrument: Float[Tensor, "N"] | None = None
    task: Int[Tensor, "N"] | None = None
    weight: Float[Tensor, "N"] | None = None
    source: Int[Tensor, "N"] | None = None
    extras: TensorDict | None = None
    note: Any = None


@tensorclass
class Sequences(_Described):
    """Decisions in order, [B, T]: a rollout of a vector environment, completions, an action chunk,
    a denoising path.

    `action` [B, T, ...], `mask` [B, T] (1 where the policy decided), `reward` [B, T] (where it was
    paid),
    `behavior_logp` [B, T] stored when sampling; `obs` [B, T, d], or `prompt` [B, P] where the
    prefix is observed.
    """

    action: Tensor
    mask: Float[Tensor, "B T"]
    reward: Float[Tensor, "B T"] | None = None
    behavior_logp: Float[Tensor, "B T"] | None = None
    turn: Int[Tensor, "B T"] | None = None
    obs: Tensor | None = None
    prompt: Int[Tensor, "B P"] | None = None
    prompt_mask: Float[Tensor, "B P"] | None = None
    terminated: Bool[Tensor, "B T"] | None = None
    truncated: Bool[Tensor, "B T"] | None = None
    next_obs: Tensor | None = None
    group: Int[Tensor, "B"] | None = None
    source: Int[Tensor, "B"] | None = None
    age: Int[Tensor, "B"] | None = None
    extras: TensorDict | None = None
    note: Any = None

    @property
    def length(self) -> Float[Tensor, "B"]:
        """How many decisions each sequence has."""
        return self.mask.sum(-1)

    @property
    def total(self) -> Float[Tensor, "B"]:
        """The sum of rewards of each sequence."""
        assert self.reward is not None
        return self.reward.sum(-1)


@tensorclass
class Pairs(_Described):
    """Two sequences a row, [B], from the same prompt or start: `chosen` was preferred to
    `rejected`."""

    chosen: Sequences
    rejected: Sequences
    weight: Float[Tensor, "B"] | None = None
    extras: TensorDict | None = None
    note: Any = None
