"""The forms a recipe returns: the grammar of the library, in one file.

A recipe is a plain function, hyperparameters with the paper's defaults in, one form out. A form is
a frozen dataclass
that holds parts; it describes and does nothing. `training` runs `Learner`, `PolicyGradient`,
`Pairwise` and `Scored`;
`evaluation` runs `Estimator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.parts import Nets, Node, Number, Part, State

__all__ = [
    "Acted", "Adam", "Best", "Collect", "Copy", "Descent", "Ema", "Estimator", "Explorer", "Form",
    "Given",
    "Learner", "Monitor", "Net", "Outlook", "Pairwise", "Planner", "Policy", "PolicyGradient",
    "Pool", "Prioritized", "Project",
    "Reading", "Repeat", "Scored", "Snapshot", "Source", "Spaces", "Stage", "Stages", "Steering",
    "Study", "Train",
    "Transform", "adam", "beside", "best", "box", "copy", "ema", "given", "log", "mix", "pairs",
    "pool", "project", "replay", "resampled", "rollouts", "train",
]  # fmt: skip

Terms = dict[str, Tensor]
Loss = Part[[Nets, Any], Any] | Node


# ----------------------------------------------------------------------------------------------
# what acts


@dataclass(frozen=True)
class Spaces:
    """What goes in and out of an environment, which is what nets must fit.

    Attributes:
        obs_dim: length of an observation, which is always a flat vector.
        action_dim: length of a continuous action; 0 when actions are discrete.
        n_actions: number of discrete actions; 0 when actions are continuous.
        low, high: bounds of each entry of a continuous action; [-1, 1] where not given.
        horizon: steps after which an episode is truncated; None when it never is.
        extras: what else a task declares (goal size, number of agents).
    """

    obs_dim: int
    action_dim: int = 0
    n_actions: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    horizon: int | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.action_dim > 0) == (self.n_actions > 0):
            raise InputError("spaces need either action_dim (continuous) or n_actions (discrete)")
        if not self.low and not self.high:
            object.__setattr__(self, "low", (-1.0,) * self.action_dim)
            object.__setattr__(self, "high", (1.0,) * self.action_dim)
        if len(self.low) != self.action_dim or len(self.high) != self.action_dim:
            raise InputError(
                f"{self.action_dim} action bounds expected, got {len(self.low)} low, "
                f"{len(self.high)} high"
            )

    @property
    def discrete(self) -> bool:
        """Whether actions are numbers 0 .. n_actions - 1."""
        return self.n_actions > 0

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform actions: [n] integers ([n, agents] where several act together), or
        [n, action_dim] within the bounds (normal where unbounded)."""
        device = generator.device if generator is not None else None
        if self.discrete:
            many = (n, int(self.extras["agents"])) if self.extras.get("agents") else (n,)
            return torch.randint(self.n_actions, many, generator=generator, device=device)
        low = torch.tensor(self.low, device=device)
        high = torch.tensor(self.high, device=device)
        shape = (n, self.action_dim)
        if not (low.isfinite() & high.isfinite()).all():
            return torch.randn(shape, generator=generator, device=device)
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    def uniform_logp(self) -> float:
        """The log density (or log probability) of every action that `sample` draws when bounded."""
        if self.discrete:
            return -math.log(self.n_actions) * int(self.extras.get("agents") or 1)
        return -sum(math.log(h - lo) for lo, h in zip(self.low, self.high, strict=True))


@dataclass
class Acted:
    """What a policy did: `action`, its log-probability, the memory to carry on, and anything worth
    logging."""

    action: Tensor
    logp: Tensor | None = None
    memory: Any = None
    extras: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """Anything that acts."""

    def act(self, obs: Tensor, memory: Any = None) -> Acted:
        """Choose for a batch of observations [B, ...]."""
        ...

    def given(self, **condition: Any) -> Policy:
        """The same policy under a condition: a task code, a target return, a guidance weight."""
        ...


# ----------------------------------------------------------------------------------------------
# nets and snapshots

Net = Part[[Spaces], nn.Module]


@dataclass(frozen=True)
class Ema:
    """A copy of a net that follows it: p <- (1 - tau) p + tau q, every `every` updates.

    `corrected`: the weighted mean of all states so far with weights (1 - tau)^age, the first one
    included; its center of mass is 1 / tau - 1 updates.
    """

    of: str
    tau: Number = 0.005
    corrected: bool = False
    every: int = 1


@dataclass(frozen=True)
class Copy:
    """A copy of a net, refreshed every `every` updates, every "batch", or never (None), `lag`
    refreshes late."""

    of: str
    every: int | str | None = None
    lag: int = 0


@dataclass(frozen=True)
class Best:
    """The state of a net that `judge` scored highest so far; it scores the start, and then every
    `every` updates.

    `judge` is a part of the nets and a batch of the source, as a loss is; the mean of what it gives
    is the score.
    """

    of: str
    judge: Part[[Nets, Any], Any]
    every: int


@dataclass(frozen=True)
class Pool:
    """The last `size` states of a net, one stored every `every` updates; all are the first state
    at the start.

    In a loss `nets.past[-1]` is the latest, called as the net itself; `nets.past(obs)`, or a method
    of the net, gives what each of them gives, stacked in front: [size, ...].
    """

    of: str
    size: int
    every: int = 1


@dataclass(frozen=True)
class Given:
    """A net that the caller hands in by the name of a role."""

    role: str


Snapshot = Ema | Copy | Best | Pool | Given


def ema(of: str, tau: Number = 0.005, corrected: bool = False, every: int = 1) -> Ema:
    """A net's exponential moving average."""
    return Ema(of, tau, corrected, every)


def copy(of: str, every: int | str | None = None, lag: int = 0) -> Copy:
    """A net as it was: at the start (`every=None`), every so many updates, or each "batch"."""
    return Copy(of, every, lag)


def best(of: str, judge: Any, every: int) -> Best:
    """A net as it was when `judge` liked it best."""
    return Best(of, judge, every)


def pool(of: str, size: int, every: int = 1) -> Pool:
    """A net as it was at several times."""
    return Pool(of, size, every)


def given(role: str) -> Given:
    """A net or policy that the caller hands in."""
    return Given(role)


# ----------------------------------------------------------------------------------------------
# steps


@dataclass(frozen=True)
class Adam:
    """Adam, with decoupled weight decay and clipping of the global gradient norm where asked
    for."""

    lr: Number = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_norm: float | None = None


Optimizer = Adam


def adam(
    lr: Number = 3e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_norm: float | None = None,
) -> Adam:
    """The optimizer of nearly every method; `weight_decay` is AdamW's."""
    return Adam(lr, betas, eps, weight_decay, max_norm)


class Descent(Protocol):
    """What a gradient rule sees: the loss terms and their gradients with respect to the trained
    parameters."""

    terms: Terms
    parameters: dict[str, Tensor]

    def grad(self, *names: str) -> dict[str, Tensor]:
        """The gradient of the sum of some terms (all, when none is named), by parameter name."""
        ...

    def at(self, parameters: dict[str, Tensor]) -> Terms:
        """The terms at other parameters, to be differentiated again."""
        ...


@dataclass(frozen=True)
class Train:
    """One step of an update: nets, the loss that moves them, the optimizer, how often, and how
    gradients combine."""

    nets: tuple[str, ...]
    loss: Loss
    optimizer: Adam = field(default_factory=Adam)
    gradient: Part[[Descent], Any] | None = None
    every: int = 1
    times: int = 1


@dataclass(frozen=True)
class Project:
    """A step that puts a net's parameters back into a set, by `rule` on the parameters."""

    net: str
    rule: Part[[Any], Any]
    every: int = 1


Step = Train | Project


def train(
    nets: str | tuple[str, ...],
    loss: Loss,
    optimizer: Adam | None = None,
    *,
    gradient: Part[[Descent], Any] | None = None,
    every: int = 1,
    times: int = 1,
) -> Train:
    """A step that trains some nets: gradient reaches those only."""
    names = (nets,) if isinstance(nets, str) else tuple(nets)
    return Train(names, loss, optimizer or Adam(), gradient, every, times)


def project(net: str, rule: Part[[Any], Any], every: int = 1) -> Project:
    """A step that projects a net's parameters."""
    return Project(net, rule, every)


# ----------------------------------------------------------------------------------------------
# sources


@dataclass(frozen=True)
class Prioritized:
    """Rows of a log drawn by how wrong the nets are about them: P(i) in proportion to
    (error_i + eps)^alpha, each loss weighted by (N P(i))^-beta over the largest such weight.

    Prioritized Experience Replay (2015), which renews the priorities of the rows just drawn; a log
    does not grow, so here those of all rows are renewed every `every` updates.

    Attributes:
        error: of each row [B], a part of nets and a batch, such as `td_error(best_action())`.
    """

    error: Part[[Nets, Any], Any]
    alpha: float = 0.6
    beta: Number = 0.4
    every: int = 500
    eps: float = 1e-3


@dataclass(frozen=True)
class Source:
    """Where batches come from; `training` opens it as a stream.

    Attributes:
        kind: "log", "replay", "rollouts", "mix", "beside", "resampled", "generated", "pairs",
            "scored" or "sampled".
        size: rows (or sequences, or environments) per batch.
        view: "rows", "n_step", "segments", "chunks" or "episodes".
        options: what else the kind takes.
        parts: the sources that a mix draws from (or that stand beside each other), by name, each
            with its share.
    """

    kind: str
    size: int = 256
    view: str = "rows"
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, tuple[float, Source]] = field(default_factory=dict)


def log(size: int = 256, view: str = "rows", role: str = "log", **options: Any) -> Source:
    """Batches drawn from a fixed log, which stays on the device."""
    return Source("log", size, view, {"role": role, **options})


def replay(size: int = 256, capacity: int = 1_000_000, warm: int = 5_000, per_step: float = 1.0,
           view: str = "rows", **options: Any) -> Source:  # fmt: skip
    """Batches from what the policy did so far: `per_step` updates per environment step, after
    `warm` steps."""
    return Source(
        "replay", size, view, {"capacity": capacity, "warm": warm, "per_step": per_step, **options}
    )


def rollouts(envs: int = 8, horizon: int = 128, group: int = 1, then: tuple[Any, ...] = (),
**options: Any) -> Source:  # fmt: skip
    """Fresh sequences of the policy: `envs` at once, `horizon` decisions each; or `group` answers
    to each prompt."""
    return Source(
        "rollouts", envs, "sequences", {"horizon": horizon, "group": group, "then": then, **options}
    )


def resampled(size: int = 256, by: str = "anchor", role: str = "log", **options: Any) -> Source:
    """States of a log, [size, 1], with actions drawn anew by a net: an on-policy objective without
    an environment."""
    return Source("resampled", size, "rows", {"role": role, "by": by, **options})


def pairs(size: int = 64, role: str = "pairs") -> Source:
    """Preference pairs of a log's segments, `chosen.obs`, `rejected.obs` and so on; actions are
    mapped to [-1, 1], as those of the log are."""
    return Source("pairs", size, "pairs", {"role": role, "unit": True})


def beside(first: Source, **others: Source) -> Source:
    """Batches of several sources side by side, each of its own size: the columns of the first by
    their names, those of the others behind theirs, such as `pairs.chosen.obs`."""
    parts = {"first": (1.0, first), **{name: (1.0, source) for name, source in others.items()}}
    return Source("beside", first.size, first.view, {}, parts)


def box(low: tuple[float, ...], high: tuple[float, ...], size: int = 256) -> Source:
    """States drawn evenly from a box, with even actions: for what is fitted to another net's
    answers, and needs no log."""
    return Source("box", size, "rows", {"low": tuple(low), "high": tuple(high)})


def mix(size: int = 256, **shares: float | tuple[float, Source]) -> Source:
    """Batches from several sources, each row marked by where it came from: `mix(log=0.5,
    replay=0.5)`."""
    known: dict[str, Callable[..., Source]] = {"log": log, "replay": replay}
    parts = {
        name: share
        if isinstance(share, tuple)
        else (float(share), known[name](round(size * share)))
        for name, share in shares.items()
    }
    return Source("mix", size, "rows", {}, parts)


# ----------------------------------------------------------------------------------------------
# the forms


@dataclass(frozen=True)
class Learner:
    """Named nets, and the losses that train them, in the order of the paper's algorithm box.

    Attributes:
        nets: by name: a net to build, or a snapshot of another.
        update: the steps of one update, in order.
        act: from the nets, the policy that is handed over.
        explore: from the nets, the policy that collects, where it is another one.
        source: where batches come from.
        prepare: once per batch, without gradient: labels, weights, task codes.
        discrete: True, False, or None where the recipe fits both kinds of actions.
    """

    nets: Mapping[str, Net | Snapshot]
    update: tuple[Step, ...]
    act: Part[[Nets, Any], Any]
    source: Source = field(default_factory=log)
    prepare: tuple[Part[[Nets, Any], Any], ...] = ()
    explore: Part[[Nets, Any], Any] | None = None
    discrete: bool | None = None


@dataclass(frozen=True)
class PolicyGradient:
    """A policy that moves toward what did better than expected, as far as `trust` lets it.

    `ratio` makes Steps.log_ratio, `advantage` (once per batch, [B, T]) Steps.advantage, `trust`
    the loss per
    decision, `reduce` one number from it. `select` weighs or drops sequences; `signals` add
    columns that cost a
    forward pass. `anchor` is where trust is centered.
    """

    advantage: Part[[Any], Any]
    trust: Part[[Any], Any]
    ratio: Part[[Any], Tensor] | None = None
    reduce: Part[[Any], Tensor] | None = None
    select: Part[[Any], Tensor] | None = None
    signals: tuple[Part[[Nets, Any], Any], ...] = ()
    source: Source = field(default_factory=rollouts)
    anchor: Snapshot = field(default_factory=lambda: Copy("policy", "batch"))
    nets: Mapping[str, Net | Snapshot] = field(default_factory=dict)
    also: tuple[Step, ...] = ()
    gradient: Part[[Descent], Any] | None = None
    optimizer: Adam = field(default_factory=Adam)
    epochs: int = 1
    minibatches: int = 1


@dataclass(frozen=True)
class Pairwise:
    """DPO and its kin: a loss on pairs of sequences, each reduced by `ratio` to a log-ratio to the
    reference."""

    loss: Part[[Any], Tensor]
    ratio: Part[[Any], Tensor] | None = None
    nets: Mapping[str, Net | Snapshot] = field(
        default_factory=lambda: {"reference": Copy("policy")}
    )
    source: Source = field(default_factory=lambda: Source("pairs", 32, "pairs"))
    optimizer: Adam = field(default_factory=lambda: Adam(1e-5, max_norm=1.0))
    gradient: Part[[Descent], Any] | None = None


@dataclass(frozen=True)
class Scored:
    """A loss on scored sequences, alone or in groups."""

    loss: Part[[Any], Tensor]
    ratio: Part[[Any], Tensor] | None = None
    nets: Mapping[str, Net | Snapshot] = field(
        default_factory=lambda: {"reference": Copy("policy")}
    )
    source: Source = field(default_factory=lambda: Source("scored", 32, "sequences"))
    optimizer: Adam = field(default_factory=lambda: Adam(1e-5, max_norm=1.0))
    gradient: Part[[Descent], Any] | None = None


@dataclass(frozen=True)
class Collect:
    """Let a net act for some episodes in the task and add what it did to a role, a log that later
    stages read."""

    policy: str
    episodes: int
    into: str


@dataclass(frozen=True)
class Stage:
    """A form (or a collection) run for some updates (environment steps where it learns from its own
    rollouts), or until a monitor raises its alarm before.

    The monitor watches what the run logs at every mark, a dict of numbers.
    """

    do: Any
    steps: int = 0
    until: Monitor | None = None


@dataclass(frozen=True)
class Repeat:
    """Stages run several times, or once for each of a role's many logs, which then is the log."""

    times: int | str
    stages: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Stages:
    """Forms one after the other: nets carry over by name, and what a stage does not train is
    frozen in it."""

    stages: tuple[Stage | Repeat, ...] = ()


@dataclass(frozen=True)
class Estimator:
    """An estimate of a policy's value: a score per unit whose mean is the value.

    Attributes:
        score: from a Query to scores, [N].
        nuisances: models that are fitted by folds first, by the name of the column their
            predictions fill.
        unit: "row" or "episode".
        needs: columns the log must have.
        biased: True where the mean is not the value even with many rows; such an estimator cannot
            promote.
        assumptions: when its interval covers, in one sentence.
    """

    score: Part[[Any], Any]
    nuisances: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "row"
    needs: tuple[str, ...] = ()
    biased: bool = False
    assumptions: str = ""


@dataclass(frozen=True)
class Outlook:
    """What an explorer's choice sees: predicted rewards [B, A], their spread, what is available,
    and the round."""

    mean: Tensor
    spread: Tensor | None = None
    available: Tensor | None = None
    count: Tensor | None = None
    round: int = 0
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Explorer:
    """Decides and learns as it goes: `choose` gives the probabilities that are played, and
    logged."""

    choose: Part[[Outlook], Tensor]
    model: Any = None
    memory: Any = None
    refit: int = 1


@dataclass(frozen=True)
class Planner:
    """Solves a model; with `episodes` > 0: act, append, estimate, solve again."""

    solve: Part[[Any], Any]
    model: Any = None
    episodes: int = 0


@dataclass(frozen=True)
class Transform:
    """A log from a log (relabeling, augmentation), or a task from a task (latent, residual
    actions)."""

    apply: Part[[Nets, Any], Any]
    fit: Learner | None = None
    into: str = "log"


@dataclass(frozen=True)
class Steering:
    """A policy from a policy, when it decides."""

    wrap: Part[[Nets, Any], Any]


@dataclass(frozen=True)
class Reading:
    """What a monitor says of a batch: when, what and how sure."""

    statistic: float
    threshold: float
    alarm: bool
    since: int | None = None
    why: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Monitor:
    """Watches a stream of batches against an anchor; `watch` is a part with state."""

    watch: Part[[Any], Any]
    anchor: Part[[Any], State] | None = None


@dataclass(frozen=True)
class Study:
    """Numbers, a picture and advice: the form of studies and diagnostics."""

    measure: Part[[Any], Any]


Form = (
    Learner | PolicyGradient | Pairwise | Scored | Stages | Estimator | Explorer | Planner |
    Transform
    | Steering | Monitor | Study
)  # fmt: skip


def is_form(value: Any) -> bool:
    """Whether a value is one of the forms."""
    return isinstance(value, Form)


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters are."""
    return next(iter(module.parameters()), torch.zeros(())).device
