"""`PolicyGradient` on control, as a `Learner`: the parts are those that run on tokens.

Once per batch: log-probs of anchor and references, the signals' columns, the advantage, the
selection. Per minibatch: log-probs of the policy, ratio, trust, reduction. The steps in `also`
train what stands beside. A batch is rollouts of the policy; or steps of a log, with their logged
actions or with actions drawn anew by a net, which is one decision a sequence and one minibatch a
batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Copy, Given, Learner, PolicyGradient, Source, Train
from surpass.objectives.advantage import with_columns
from surpass.objectives.ratio import per_decision
from surpass.objectives.reduce import token_mean
from surpass.objectives.rows import Rows
from surpass.objectives.views import Steps
from surpass.parts import Evaluate, Nets, Part, needs_of, part
from surpass.policies.acting import mean, sampled, walked
from surpass.policies.stochastic import score, stochastic
from surpass.training.preferences import lowered_preferences
from surpass.training.rollouts import SequenceRows

__all__ = ["BatchColumns", "Surrogate", "as_logged", "drawn_anew", "lowered", "updates_for"]


@dataclass(frozen=True)
class BatchColumns:
    """What a policy gradient derives once per batch: `ref_logp`, the signals' columns,
    `anchor_logp`, `advantage` and its further columns; the mask times the selection's weights.

    Attributes:
        anchor: the net at which trust is centered; "" where the loss asks a net that moves.
        needs: what the parts of the form need; `anchor_NAME` and `ref_NAME` are the statistic NAME
            of those nets.
    """

    advantage: Part[[Any], Any]
    signals: tuple[Part[[Nets, Any], Any], ...] = ()
    select: Part[[Any], Tensor] | None = None
    reference: bool = False
    anchor: str = ""
    needs: tuple[Any, ...] = ()

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any:
        """The sequences with their columns."""
        nets, seq = seen
        if self.reference:
            seq = with_columns(seq, **_scored(nets["reference"], seq, "ref", self.needs))
        for i, signal in enumerate(self.signals):
            seq = part(signal, (nets, seq), "signals", str(i))
        if self.anchor:
            seq = with_columns(seq, **_scored(nets[self.anchor], seq, "anchor", self.needs))
        found = part(self.advantage, (seq,), "advantage")
        found = found if isinstance(found, dict) else {"advantage": found}
        if self.select is not None:
            seq = _weighed(seq, part(self.select, (seq,), "select"))
        return with_columns(seq, **found)


def _scored(net: Any, seq: Any, name: str, needs: tuple[Any, ...]) -> dict[str, Tensor]:
    """The log-prob of a net and the statistics that are asked of it by name, as columns."""
    asked = tuple(n for n in needs if callable(n) and f"{name}_{n.__name__}" in needs)
    logp, found = score(net, seq.obs, seq.action, asked)
    return {f"{name}_{k}": v.detach() for k, v in {"logp": logp, **found}.items()}


def _weighed(seq: Any, weight: Tensor) -> Any:
    """The sequences, their masks times a weight of each."""
    mask = seq.mask * weight[:, None]
    if hasattr(seq, "filled"):
        return seq.filled(mask=mask)
    weighed = seq.clone(recurse=False)
    weighed.mask = mask
    return weighed


@part
def drawn_anew(nets: Nets, rows: Rows, /, by: str = "anchor") -> SequenceRows:
    """The states of a batch of a log as sequences of one decision, [B, 1]: the actions and
    `behavior_logp` are those of a net; `row` columns keep what the log had (`log_action`)."""
    action, logp = nets[by].sample(rows.obs)
    group = torch.arange(len(rows), device=rows.obs.device)
    columns = {
        "obs": rows.obs[:, None], "action": action[:, None], "behavior_logp": logp[:, None],
        "mask": torch.ones_like(logp)[:, None], "reward": torch.zeros_like(logp)[:, None],
        "group": group, "log_action": rows.action[:, None],
    }  # fmt: skip
    return SequenceRows({k: v.detach() for k, v in columns.items()}, rows.sources, rows.log)


@part
def as_logged(nets: Nets, rows: Rows, /) -> SequenceRows:
    """The steps of a batch of a log as sequences of one decision: all columns [B, 1, ...]; the mask
    is the weight of each step, where the log has weights."""
    group = torch.arange(len(rows), device=rows.obs.device)
    alone = ("weight", "index")
    columns = {k: column[:, None] for k, column in rows.columns.items() if k not in alone}
    mask = rows.weight if "weight" in rows else torch.ones_like(rows.reward)
    columns |= {"mask": mask[:, None], "group": group, "index": rows.index}
    return SequenceRows(columns, rows.sources, rows.log)


@dataclass(frozen=True)
class Surrogate:
    """The loss of a policy gradient on a minibatch of sequences: ratio, trust and reduction."""

    trust: Part[[Steps], Any]
    ratio: Part[[Steps], Tensor]
    reduce: Part[[Steps], Tensor]
    anchor: str = ""
    policy: str = "policy"

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any:
        """One number; or, where trust gives terms, one of each, for a gradient rule."""
        nets, seq = seen
        steps = self.steps(nets, seq)
        steps = steps.filled(log_ratio=part(self.ratio, (steps,), "ratio"))
        terms = part(self.trust, (steps,), "trust")
        if isinstance(terms, Tensor):
            return part(self.reduce, (steps.filled(loss=terms),), "reduce")
        return {
            name: part(self.reduce, (steps.filled(loss=value),), "reduce")
            for name, value in terms.items()
        }

    def steps(self, nets: Nets, seq: Any) -> Steps:
        """What a trust rule sees of the minibatch."""
        needs = needs_of((self.trust, self.ratio, self.reduce))
        logp, statistics = score(nets[self.policy], seq.obs, seq.action, needs)
        extras = {k: v for k, v in seq.extras.items() if k not in ("obs", "action")}
        if self.anchor:
            extras |= _scored(nets[self.anchor], seq, "anchor", needs)
        return Steps(
            logp=logp, mask=seq.mask, anchor_logp=extras["anchor_logp"],
            behavior_logp=seq.behavior_logp,
            ref_logp=extras.get("ref_logp"), advantage=extras["advantage"], group=seq.group,
            entropy=statistics.get("entropy"), extras={**extras, **statistics},
        )  # fmt: skip


def lowered(
    form: Any, roles: Mapping[str, Any] | None = None, known: Mapping[str, Any] | None = None
) -> Any:
    """The `Learner` that a `PolicyGradient` (or `Pairwise`, or `Scored`) is on control; any other
    form as it is.

    Args:
        known: nets of stages before, whose "policy" it goes on with where it names none.

    Raises:
        InputError: when it asks for what control does not have.
    """
    if not isinstance(form, PolicyGradient):
        return lowered_preferences(form)
    if form.source.kind not in ("rollouts", "resampled", "log"):
        raise InputError(
            f"on control a policy gradient learns from rollouts or a log, not {form.source}"
        )
    nets: dict[str, Any] = dict(form.nets)
    if "policy" not in nets:
        handed = isinstance((roles or {}).get("policy"), torch.nn.Module)
        own = Given("policy") if handed else (known or {}).get("policy", stochastic())
        nets = {"policy": own, **nets}
    still = form.source.kind != "rollouts"
    each = isinstance(form.anchor, Copy) and form.anchor.every == "batch" and not form.anchor.lag
    moving = still or not each
    if moving:
        nets["anchor"] = form.anchor
    derive = BatchColumns(
        advantage=form.advantage, signals=form.signals, select=form.select,
        reference="reference" in nets, anchor="" if moving else "policy",
        needs=needs_of((form.trust, form.ratio, form.reduce)),
    )  # fmt: skip
    loss = Surrogate(
        trust=form.trust, ratio=form.ratio or per_decision(), reduce=form.reduce or token_mean(),
        anchor="anchor" if moving else "",
    )  # fmt: skip
    source, prepare = _source(form, derive)
    paths, who = form.source.options.get("paths"), "behavior" if "behavior" in nets else "policy"
    return Learner(
        nets=nets,
        update=(Train(("policy",), loss, form.optimizer, form.gradient), *form.also),
        act=sampled("policy") if paths else mean("policy"),  # who generates draws
        explore=walked(who) if paths else sampled(who),
        source=source,
        prepare=prepare,
    )


def _source(form: PolicyGradient, derive: Any) -> tuple[Source, tuple[Any, ...]]:
    """Where batches come from, and what is derived in the update itself."""
    options = dict(form.source.options)
    if form.source.kind != "rollouts":
        if form.epochs * form.minibatches > 1:
            raise InputError("steps of a log make one minibatch a batch: epochs=1")
        anew = form.source.kind == "resampled"
        taken = drawn_anew(options.pop("by")) if anew else as_logged()
        return replace(form.source, kind="log", options=options), (taken, derive)
    options |= {"then": (*options.get("then", ()), derive),
                "epochs": form.epochs, "minibatches": form.minibatches}  # fmt: skip
    return replace(form.source, options=options), ()


def updates_for(learner: Learner, steps: int) -> int:
    """How many updates so many environment steps pay for, where a recipe learns by acting only;
    for others `steps` are updates."""
    source: Source = learner.source
    options = source.options
    if source.kind == "rollouts":
        batch = source.size * int(options.get("horizon", 128))
        many = int(options.get("epochs", 1)) * int(options.get("minibatches", 1))
        return max(1, round(steps / batch)) * many
    if source.kind == "replay":
        acting = max(steps - int(options.get("warm", 5_000)), 1)
        return max(1, int(acting * float(options.get("per_step", 1.0))))
    return steps
