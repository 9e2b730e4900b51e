"""`Pairwise` and `Scored` on control, as a `Learner`: preferences between, and scores of, sequences
of observations and actions. The parts are those that run on tokens.

A log is `Pairs` of `Sequences` with observations [B, T, d], or scored `Sequences` themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surpass.data.records import Pairs, Sequences
from surpass.errors import InputError
from surpass.forms import Learner, Pairwise, Scored, Source, Spaces, Train
from surpass.objectives.ratio import summed
from surpass.objectives.reduce import decided, weighted_mean
from surpass.objectives.rows import Rows
from surpass.objectives.views import Side, Sides, Steps
from surpass.parts import Evaluate, Nets, Part, needs_of
from surpass.policies.acting import mean
from surpass.policies.stochastic import score, stochastic
from surpass.training.streams import Tables, opens, unit_actions

__all__ = ["PairSurrogate", "ScoredSurrogate", "SequenceLog", "lowered_preferences"]

_COLUMNS = ("obs", "action", "mask", "reward", "group")


@dataclass(frozen=True)
class ScoredSurrogate:
    """The loss of a form on scored sequences.

    Attributes:
        reference: whether the form names one, the net "reference".
    """

    loss: Part[[Side], Any]
    ratio: Part[[Any], Tensor]
    reference: bool = True
    policy: str = "policy"

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any:
        """The mean over sequences, or of each of the loss's terms."""
        nets, rows = seen
        return _mean(part(self.loss, (self.side(nets, rows, "", part),), "loss"), None)

    def side(self, nets: Nets, rows: Any, start: str, part: Evaluate) -> Side:
        """What the loss sees of the sequences whose columns begin with a word."""
        columns = {n: rows.columns.get(f"{start}{n}") for n in _COLUMNS}
        obs, action, mask = (columns[n] for n in ("obs", "action", "mask"))
        logp, found = score(nets[self.policy], obs, action, needs_of(self.loss))
        ref = score(nets["reference"], obs, action)[0].detach() if self.reference else None
        steps = Steps(logp, mask, ref_logp=ref, group=columns["group"],
                      entropy=found.get("entropy"), extras=found)  # fmt: skip
        reward = columns["reward"]
        return Side(
            part(self.ratio, (steps,), "ratio"), decided(mask).sum(-1), steps,
            None if reward is None else reward.sum(-1), columns["group"],
        )  # fmt: skip


@dataclass(frozen=True)
class PairSurrogate(ScoredSurrogate):
    """The loss of a form on preference pairs."""

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any:
        """The mean over pairs, by their weights, or of each of the loss's terms."""
        nets, rows = seen
        sides = Sides(*(self.side(nets, rows, f"{s}.", part) for s in ("chosen", "rejected")))
        return _mean(part(self.loss, (sides,), "loss"), rows.columns.get("pair_weight"))


def _mean(value: Any, weight: Tensor | None) -> Any:
    if isinstance(value, Tensor):
        return weighted_mean(value, weight)
    return {name: weighted_mean(term, weight) for name, term in value.items()}


def lowered_preferences(form: Any) -> Any:
    """The `Learner` that `Pairwise` or `Scored` is on control; any other form as it is.

    Raises:
        InputError: when it asks for what control does not have.
    """
    if not isinstance(form, Pairwise | Scored):
        return form
    missing = [n for n in needs_of(form) if n in ("mismatched", "score")]
    if missing:
        raise InputError(f"a part of this recipe needs {missing[0]!r}, which control does not have")
    kind = PairSurrogate if isinstance(form, Pairwise) else ScoredSurrogate
    loss = kind(form.loss, form.ratio or summed(), reference="reference" in form.nets)
    return Learner(
        nets={"policy": stochastic(), **form.nets},
        update=(Train(("policy",), loss, form.optimizer, form.gradient),),
        act=mean("policy"), source=form.source,
    )  # fmt: skip


class SequenceLog:
    """Batches of a fixed log of pairs or scored sequences, without replacement within a batch."""

    names: tuple[str, ...] = ("log",)
    spent = 0

    def __init__(
        self, log: Pairs | Sequences, size: int, device: Any = "cpu", unit: Spaces | None = None
    ) -> None:
        """`unit`: the spaces whose bounds actions are mapped from, to [-1, 1]; None leaves them."""
        tables: Tables = {}
        sides = {"": log} if isinstance(log, Sequences) else {
            "chosen.": log.chosen, "rejected.": log.rejected}  # fmt: skip
        for start, seq in sides.items():
            if seq.obs is None:
                raise InputError("preferences on control need sequences with observations")
            for name in _COLUMNS:
                value = getattr(seq, name)
                if value is not None:
                    if name == "action" and unit is not None:
                        value = unit_actions(value, unit)
                    tables[f"{start}{name}"] = value.to(device).contiguous()
        if isinstance(log, Pairs) and log.weight is not None:
            tables["pair_weight"] = log.weight.to(device)
        self.tables, self.rows, self.size = tables, len(log), min(size, len(log))

    def sample(self, tables: Tables, size: int | None = None) -> Rows:
        """Some of the log's rows."""
        some = next(iter(tables.values()))
        index = torch.randperm(self.rows, device=some.device)[: size or self.size]
        return Rows({name: column[index] for name, column in tables.items()}, self.names)

    def before(self, updates: int) -> None:
        """Nothing happens between updates."""

    def learn(self, metrics: Mapping[str, float]) -> None:
        """Losses change nothing here."""

    def state_dict(self) -> dict[str, Any]:
        """The order follows from the generator of the engine."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to put back."""


def _open(
    source: Source, roles: Mapping[str, Any], spaces: Spaces, needs: tuple[str, ...], device: Any
) -> SequenceLog:
    role = source.options.get("role", "log")
    log = roles.get(role)
    if not isinstance(log, Pairs | Sequences):
        raise InputError(
            "this recipe learns from pairs or scored sequences of a log; give "
            f"{'data' if role == 'log' else role}=..."
        )
    unit = spaces if source.options.get("unit") else None
    return SequenceLog(log, source.size, device, unit)


for _kind in ("pairs", "scored"):
    opens(_kind)(_open)
