"""`PolicyGradient` on control, as a `Learner`: the parts are those that run on tokens.

Once per batch: log-probs of anchor and references, the signals' columns, the advantage, the
selection. Per minibatch: log-probs of the policy, ratio, trust, reduction. The steps in `also`
train what stands beside. A batch is rollouts of the policy, or states of a log with actions drawn
anew by a net, which is one decision a sequence and one minibatch a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surpass.errors import InputError
from surpass.forms import Copy, Given, Learner, PolicyGradient, Source, train
from surpass.objectives.advantage import with_columns
from surpass.objectives.ratio import per_decision
from surpass.objectives.reduce import token_mean
from surpass.objectives.rows import Rows
from surpass.objectives.views import Steps
from surpass.parts import Nets, needs_of, part
from surpass.policies.acting import mean, sampled
from surpass.policies.stochastic import score, stochastic
from surpass.training.rollouts import SequenceRows

__all__ = ["batch_columns", "drawn_anew", "lowered", "surrogate", "updates_for"]


@part
def batch_columns(
    nets: Nets, seq: Any, /, advantage: Any, signals: tuple[Any, ...] = (), select: Any = None,
    reference: bool = False, anchor: str = "",
) -> Any:  # fmt: skip
    """What a policy gradient derives once per batch: `ref_logp`, the signals' columns,
    `anchor_logp`, `advantage` and its further columns; the mask times the selection's weights.

    Args:
        anchor: the net at which trust is centered; "" where the loss asks a net that moves.
    """
    if reference:
        seq = with_columns(seq, ref_logp=score(nets["reference"], seq.obs, seq.action)[0])
    for signal in signals:
        seq = signal(nets, seq)
    if anchor:
        seq = with_columns(seq, anchor_logp=score(nets[anchor], seq.obs, seq.action)[0])
    found = advantage(seq)
    found = found if isinstance(found, dict) else {"advantage": found}
    if select is not None:
        seq = _weighed(seq, select(seq))
    return with_columns(seq, **found)


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
def surrogate(
    nets: Nets, seq: Any, /, trust: Any, ratio: Any, reduce: Any, anchor: str = "",
    policy: str = "policy",
) -> Tensor:  # fmt: skip
    """The loss of a policy gradient on a minibatch of sequences."""
    logp, statistics = score(nets[policy], seq.obs, seq.action, needs_of(trust))
    extras = {k: v for k, v in seq.extras.items() if k not in ("obs", "action")}
    if anchor:
        with torch.no_grad():
            anchor_logp = score(nets[anchor], seq.obs, seq.action)[0]
    else:
        anchor_logp = extras["anchor_logp"]
    steps = Steps(
        logp=logp, mask=seq.mask, anchor_logp=anchor_logp, behavior_logp=seq.behavior_logp,
        ref_logp=extras.get("ref_logp"), advantage=extras["advantage"], group=seq.group,
        entropy=statistics.get("entropy"), extras={**extras, **statistics},
    )  # fmt: skip
    return loss_of(steps, trust, ratio, reduce)


def loss_of(steps: Steps, trust: Any, ratio: Any, reduce: Any) -> Tensor:
    """Ratio, trust and reduction, in that order."""
    steps = steps.filled(log_ratio=ratio(steps))
    terms = trust(steps)
    value = terms if isinstance(terms, Tensor) else sum(terms.values())
    return reduce(steps.filled(loss=value))


def lowered(
    form: Any, roles: Mapping[str, Any] | None = None, known: Mapping[str, Any] | None = None
) -> Any:
    """The `Learner` that a `PolicyGradient` is on control; any other form as it is.

    Args:
        known: nets of stages before, whose "policy" it goes on with where it names none.

    Raises:
        InputError: when it asks for what control does not have.
    """
    if not isinstance(form, PolicyGradient):
        return form
    if form.source.kind not in ("rollouts", "resampled"):
        raise InputError(f"on control a policy gradient learns from rollouts, not {form.source}")
    nets: dict[str, Any] = dict(form.nets)
    if "policy" not in nets:
        handed = isinstance((roles or {}).get("policy"), torch.nn.Module)
        own = Given("policy") if handed else (known or {}).get("policy", stochastic())
        nets = {"policy": own, **nets}
    anew = form.source.kind == "resampled"
    each = isinstance(form.anchor, Copy) and form.anchor.every == "batch" and not form.anchor.lag
    moving = anew or not each
    if moving:
        nets["anchor"] = form.anchor
    derive = batch_columns(
        advantage=form.advantage, signals=form.signals, select=form.select,
        reference="reference" in nets, anchor="" if moving else "policy",
    )  # fmt: skip
    loss = surrogate(
        trust=form.trust, ratio=form.ratio or per_decision(), reduce=form.reduce or token_mean(),
        anchor="anchor" if moving else "",
    )  # fmt: skip
    source, prepare = _source(form, derive)
    return Learner(
        nets=nets,
        update=(train("policy", loss, form.optimizer, gradient=form.gradient), *form.also),
        act=mean("policy"),
        explore=sampled("behavior" if "behavior" in nets else "policy"),
        source=source,
        prepare=prepare,
    )


def _source(form: PolicyGradient, derive: Any) -> tuple[Source, tuple[Any, ...]]:
    """Where batches come from, and what is derived in the update itself."""
    options = dict(form.source.options)
    if form.source.kind == "resampled":
        if form.epochs * form.minibatches > 1:
            raise InputError("states drawn anew make one minibatch a batch: epochs=1")
        by = options.pop("by")
        return replace(form.source, kind="log", options=options), (drawn_anew(by), derive)
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
