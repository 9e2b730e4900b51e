"""The losses of the forms on token log-probs: what `PolicyGradient`, `Pairwise` and `Scored` are as
functions of the log-probs of a batch.

Each function here gives a closure from `TokenStats` of all rows to a scalar, which
`pieces.backward` differentiates; or, where the form has a gradient rule, to scalars by name. What
is
worth logging is written into `notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from surpass.data.records import Sequences
from surpass.forms import Pairwise, PolicyGradient, Scored
from surpass.objectives.ratio import kept, per_decision, summed
from surpass.objectives.reduce import decided, token_mean, weighted_mean
from surpass.objectives.views import Side, Sides, Steps
from surpass.parts import Node, Part, State, run
from surpass.policies.language import steps_of
from surpass.policies.token_logps import TokenStats

__all__ = ["Running", "gradient_loss", "pair_loss", "rows_of", "scored_loss"]


@dataclass
class Running:
    """What changes from update to update beside the weights: schedules' numbers and parts'
    state."""

    numbers: dict[str, float] = field(default_factory=dict)
    state: dict[str, State] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)

    def part(self, tree: Part[..., Any] | Node, seen: tuple[Any, ...], at: str) -> Any:
        """The value of a part at a slot of the form; its state is carried on."""
        value, after = run(
            tree, seen, numbers=self.numbers, state=self.state, at=tuple(at.split("."))
        )
        self.state |= {k: {n: t.detach() for n, t in s.items()} for k, s in after.items()}
        return value


def rows_of(steps: Steps, index: Tensor | slice) -> Steps:
    """Some rows of `Steps`."""
    cut = {
        f.name: value[index]
        for f in fields(steps)
        if isinstance(value := getattr(steps, f.name), Tensor)
    }
    return replace(steps, **cut, extras={k: v[index] for k, v in steps.extras.items()})


def gradient_loss(
    form: PolicyGradient, seq: Sequences, columns: Mapping[str, Any], running: Running,
    sources: tuple[str, ...] = ("own",),
) -> Callable[[TokenStats], Any]:  # fmt: skip
    """The loss of a policy gradient on a (mini)batch.

    Args:
        columns: `advantage` [B, T], `anchor_logp` and `ref_logp` where there are, and further
            columns for `Steps.extras`.
    """

    def loss(stats: TokenStats) -> Any:
        named = {k: columns[k] for k in ("advantage", "ref_logp") if columns.get(k) is not None}
        anchor = columns.get("anchor_logp")
        anchor = stats.logp.detach() if anchor is None else anchor
        steps = steps_of(seq, stats, anchor_logp=anchor, sources=sources, **named)
        others = {k: v for k, v in columns.items() if k not in ("anchor_logp", *named)}
        steps = steps.filled(extras={**steps.extras, **others})
        steps = steps.filled(
            log_ratio=running.part(form.ratio or per_decision(), (steps,), "ratio")
        )
        terms = running.part(form.trust, (steps,), "trust")
        _note(running.notes, steps)

        def reduced(value: Tensor) -> Tensor:
            filled = (steps.filled(loss=value),)
            return running.part(form.reduce or token_mean(), filled, "reduce")

        return in_terms(terms, reduced, form.gradient is not None)

    return loss


def in_terms(value: Any, reduced: Callable[[Tensor], Tensor], apart: bool) -> Any:
    """A loss, or its named terms, as one number; `apart`: as one number for each term."""
    terms = {"loss": value} if isinstance(value, Tensor) else value
    if apart:
        return {name: reduced(term) for name, term in terms.items()}
    return reduced(sum(terms.values(), torch.zeros_like(next(iter(terms.values())))))


@torch.no_grad()
def _note(notes: dict[str, float], s: Steps) -> None:
    own = decided(s.mask)
    count = own.sum().clamp_min(1)

    def mean(value: Tensor) -> float:
        return float((kept(value.detach(), own)).sum() / count)

    log_ratio = s.log_ratio.detach()
    notes["log_ratio"] = mean(log_ratio.abs())
    notes["off_share"] = mean(((log_ratio.exp() - 1).abs() > 0.2).float())
    if s.ref_logp is not None:
        notes["kl"] = mean(s.logp.detach() - s.ref_logp)
    if s.entropy is not None:
        notes["entropy"] = mean(s.entropy)


def _side(form: Pairwise | Scored, steps: Steps, running: Running, reward: Any) -> Side:
    delta = running.part(form.ratio or summed(), (steps,), "ratio")
    return Side(
        delta=delta, length=decided(steps.mask).sum(-1), steps=steps, reward=reward,
        group=steps.group,
    )  # fmt: skip


def pair_loss(
    form: Pairwise, both: Sequences, ref_logp: Tensor | None, weight: Tensor | None,
    running: Running, reward: Tensor | None = None,
) -> Callable[[TokenStats], Any]:  # fmt: skip
    """The loss of a preference method; `both` holds the chosen rows, then the rejected ones.

    Args:
        ref_logp: of the reference, for both, where the form names one.
        reward: scores of both, [2B], where a reward net gives them.
    """
    n = len(both) // 2

    def loss(stats: TokenStats) -> Any:
        steps = steps_of(both, stats, ref_logp=ref_logp)
        halves = [
            _side(form, rows_of(steps, half), running, None if reward is None else reward[half])
            for half in (slice(0, n), slice(n, 2 * n))
        ]
        sides = Sides(*halves)
        rows = running.part(form.loss, (sides,), "loss")
        notes = running.notes
        with torch.no_grad():
            if reward is None:
                notes["accuracy"] = float((sides.margin > 0).float().mean())
                notes["margin"] = float(sides.margin.mean())
                notes["chosen"] = float(sides.chosen.delta.mean())
                notes["rejected"] = float(sides.rejected.delta.mean())
            else:
                notes["accuracy"] = float((reward[:n] > reward[n:]).float().mean())
        return in_terms(rows, lambda v: weighted_mean(v, weight), form.gradient is not None)

    return loss


def scored_loss(
    form: Scored, seq: Sequences, ref_logp: Tensor | None, running: Running,
    extras: Mapping[str, Tensor],
) -> Callable[[TokenStats], Any]:  # fmt: skip
    """The loss on scored sequences."""

    def loss(stats: TokenStats) -> Any:
        steps = steps_of(seq, stats, ref_logp=ref_logp)
        steps = steps.filled(extras={**steps.extras, **extras})
        reward = seq.total if seq.reward is not None else None
        side = _side(form, steps, running, reward)
        rows = running.part(form.loss, (side,), "loss")
        running.notes["delta"] = float(side.delta.detach().mean())
        return in_terms(rows, weighted_mean, form.gradient is not None)

    return loss
