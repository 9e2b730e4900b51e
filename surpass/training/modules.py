"""The module executor: runs `PolicyGradient`, `Pairwise` and `Scored` on language models.

One `update` draws a batch, scores it under policy, anchor and reference, forms the loss from the
recipe's parts, and steps the optimizer; the parts are those that run compiled on control.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from surpass.data.records import Pairs, Sequences
from surpass.errors import InputError
from surpass.forms import Adam, Copy, Given, Pairwise, PolicyGradient, Scored, Train
from surpass.objectives.advantage import group_size, share_kept, with_columns
from surpass.objectives.ratio import summed
from surpass.objectives.reduce import total
from surpass.parts import Part, Schedule, initial_state, needs_of, schedules
from surpass.policies.language import LanguagePolicy, steps_of
from surpass.policies.sharding import agreed, whole_of, world
from surpass.policies.token_logps import TokenStats
from surpass.training.module_descent import ModuleDescent, descent_of, descent_of_terms
from surpass.training.module_losses import Running, gradient_loss, pair_loss, scored_loss
from surpass.training.pieces import backward, joined, score_all, trimmed
from surpass.training.references import Stored, Twin, twin

__all__ = ["LanguageForm", "ModuleNets", "ModuleTrainer"]

LanguageForm = PolicyGradient | Pairwise | Scored


class ModuleNets:
    """The nets of a form by name, for signals and for losses of further steps."""

    def __init__(self, policy: LanguagePolicy, nets: Mapping[str, Any]) -> None:
        self._nets = {"policy": policy, **nets}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._nets[name]
        except KeyError:
            raise InputError(
                f"the form has no net {name!r}; it has {', '.join(self._nets)}"
            ) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]


class Optimization:
    """Adam on some parameters, with the numbers of the form's `Adam`; fused, with no copies."""

    def __init__(self, parameters: Iterable[nn.Parameter], adam: Adam) -> None:
        self.adam = adam
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters:
            raise InputError("the model has no trainable parameters; unfreeze some, or add lora=8")
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=_now(adam.lr, 0), betas=adam.betas, eps=adam.eps,
            weight_decay=adam.weight_decay, fused=world() == 1,
        )  # fmt: skip

    def step(self, number: int, rate: float = 1.0) -> float:
        """One update, `rate` times the learning rate; gives the norm of the gradient before
        clipping.

        Raises:
            FloatingPointError: when the gradient is not finite; nothing has been changed then.
        """
        limit = self.adam.max_norm or math.inf
        if world() > 1:
            _averaged(self.parameters)
        size = torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=world() == 1)
        norm = float(whole_of(size))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient is {norm}")
        self.optimizer.param_groups[0]["lr"] = rate * _now(self.adam.lr, number)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def _averaged(parameters: list[nn.Parameter]) -> None:
    """Average gradients over processes, of parameters that each of them holds whole."""
    for p in parameters:
        if not isinstance(p, DTensor) and p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= world()


def _now(value: Any, step: int) -> float:
    return value.at(step) if isinstance(value, Schedule) else float(value)


class ModuleTrainer:
    """A form at work on a language model.

    Args:
        form: what a recipe returned.
        policy: the model; it is trained in place.
        stream: gives batches, `next() -> Batch`.
        piece: rows per forward pass; a batch in pieces gives the same gradient.
        roles: models handed in by name, such as `reference`.
    """

    def __init__(
        self, form: LanguageForm, policy: LanguagePolicy, stream: Any, *, seed: int = 0,
        piece: int | None = None, roles: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.form, self.policy, self.stream = form, policy, stream
        self.piece = piece or 1 << 30
        self.step = 0
        self.generator = torch.Generator().manual_seed(seed)
        self.needs = needs_of(form)
        self.running = Running(state={
            at: {name: value.to(policy.device) for name, value in held.items()}
            for at, held in initial_state(form).items()
        })  # fmt: skip
        self.schedules = schedules(form)
        policy.model.train()
        still(policy.model)
        roles = dict(roles or {})
        self.twins: dict[str, Twin] = {}
        self.nets: dict[str, nn.Module] = {}
        self.stored: Stored | None = None
        self._open_nets(roles)
        if world() > 1:
            self._spread()
        self.main = Optimization(self._trained(), form.optimizer)
        self.also = {
            ",".join(s.nets): Optimization([p for n in s.nets for p in self.nets[n].parameters()],
                                           s.optimizer)
            for s in getattr(form, "also", ()) if isinstance(s, Train)
        }  # fmt: skip
        self.view = ModuleNets(policy, {**self.nets, **self.twins})

    # -------------------------------------------------------------------------------- opening

    def _open_nets(self, roles: dict[str, Any]) -> None:
        fixed_rows = self.stream.fixed and isinstance(self.form, Pairwise | Scored)
        fixed_rows = fixed_rows and "mismatched" not in self.needs  # those are new every batch
        for name, rule in self.form.nets.items():
            if isinstance(rule, Part):
                build: Any = rule
                self.nets[name] = build(self.policy).to(self.policy.device)
                continue
            fixed = isinstance(rule, Copy) and rule.every is None
            if name == "reference" and "reference" in roles:
                self.twins[name] = Twin(self.policy, Given("reference"), roles["reference"])
            elif name == "reference" and fixed and fixed_rows and not self.policy.adapted:
                self.stored = Stored()
            else:
                self.twins[name] = twin(self.policy, rule, roles.get(getattr(rule, "role", "")))
        anchor = getattr(self.form, "anchor", None)
        if anchor is not None and not (isinstance(anchor, Copy) and anchor.every == "batch"):
            self.twins["anchor"] = twin(self.policy, anchor)

    def _spread(self) -> None:
        if self.form.gradient is not None:
            raise InputError("gradient rules run in one process; start it without torchrun")
        for net in self.nets.values():
            for tensor in (*net.parameters(), *net.buffers()):
                dist.broadcast(tensor.data, 0)
        if "score" not in self.needs:  # else it is a net that is trained, held by every process
            self.policy.shard()

    def _trained(self) -> list[nn.Parameter]:
        if "score" in self.needs:  # a reward net is what is trained, not the policy
            return list(self.nets["reward"].parameters())
        return list(self.policy.model.parameters())

    # -------------------------------------------------------------------------------- updating

    def update(self) -> dict[str, float]:
        """One batch, and the optimizer steps that the form makes of it; gives what is worth
        logging.

        Raises:
            InputError: when the loss or the gradient is not finite, naming the batch.
        """
        self.running.numbers = {k: s.at(self.step) for k, s in self.schedules.items()}
        self.running.notes = {}
        batch = self.stream.next()
        try:
            if isinstance(self.form, PolicyGradient):
                notes = self._improve(self.form, batch)
            elif isinstance(self.form, Pairwise):
                notes = self._prefer(self.form, batch)
            else:
                notes = self._regress(self.form, batch)
        except FloatingPointError as error:
            raise InputError(
                f"{error} in update {self.step + 1}, batch {batch.name}; training stopped and the "
                "last checkpoint is kept. Lower the learning rate, or look at that batch"
            ) from None
        self.step += 1
        return {**self.running.notes, **batch.notes, **notes}

    def _descend(
        self, form: LanguageForm, seq: Sequences, loss: Any, known: TokenStats | None = None
    ) -> Tensor:
        """The gradient of a batch, by the form's rule where it has one; gives the loss."""
        if form.gradient is None:
            return backward(self.policy, seq, loss, self.piece, self.needs, known)
        seen = descent_of(self.policy, seq, loss, self.piece, self.needs, known)
        return self._ruled(form, seen)

    def _ruled(self, form: LanguageForm, seen: ModuleDescent) -> Tensor:
        found = self.running.part(form.gradient, (seen,), "gradient")  # type: ignore[arg-type]
        for name, parameter in seen.parameters.items():
            parameter.grad = found[name]
        return torch.stack(list(seen.terms.values())).sum()

    def _finish(self, loss: Tensor) -> dict[str, float]:
        value = float(total(loss) / world())
        if not math.isfinite(value):
            self.main.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(f"the loss is {value}")
        rate = self.running.state.get("gradient", {}).get("rate")  # of a rule that has one
        notes = {} if rate is None else {"rate": float(rate)}
        norm = self.main.step(self.step, **notes)
        for each in self.twins.values():
            each.moved(self.step)
        return {"loss": value, "grad_norm": norm, **notes}

    def _reference(self, seq: Sequences, batch: Any, sides: tuple[str, ...]) -> Tensor | None:
        """Log-probs of the reference for rows of a log, or by its model."""
        if self.stored is not None:
            if not self.stored.rows:
                self.store(sides, [*batch.rows, *self.stream.coming()])
            width = seq.action.shape[1]
            parts = [self.stored.get(side, batch.rows, width) for side in sides]
            return torch.cat(parts).to(seq.mask.device)
        if "reference" in self.twins:
            return self.twins["reference"].logps(seq, self.piece)
        return None

    def store(self, sides: tuple[str, ...], rows: list[int]) -> None:
        """Compute and keep the reference's log-probs of some rows, with the policy as it is."""
        assert self.stored is not None
        log, size = self.stream.log, max(1, min(self.piece // len(sides), self.stream.size))
        self.stored.fill(
            self.policy, sides, rows, self.stream.side, size,
            lambda i: len(log.prompts[i]) + max(len(a[i]) for a in log.answers.values()),
        )  # fmt: skip

    def _prefer(self, form: Pairwise, batch: Any) -> dict[str, float]:
        pairs: Pairs = batch.pairs
        if not agreed(len(pairs), largest=False):  # every group was a tie
            return {"pairs": 0.0}
        both = joined(pairs.chosen, pairs.rejected)
        if "score" in self.needs:
            return self._score(form, both, pairs.weight)
        ref = self._reference(both, batch, ("chosen", "rejected")) if form.nets else None
        loss = pair_loss(form, both, ref, pairs.weight, self.running)
        value = self._descend(form, both, loss)
        return {**self._finish(value), "length": float(both.length.mean())}

    def _score(self, form: Pairwise, both: Sequences, weight: Tensor | None) -> dict[str, float]:
        reward = self.nets["reward"](both)
        empty = TokenStats(torch.zeros_like(both.mask))
        loss = pair_loss(form, both, None, weight, self.running, reward)(empty)
        if form.gradient is not None:
            return self._finish(self._ruled(form, descent_of_terms(loss, self.nets["reward"])))
        loss.backward()
        return self._finish(loss.detach())

    def _regress(self, form: Scored, batch: Any) -> dict[str, float]:
        seq: Sequences = batch.sequences
        _check_groups(form, seq, self.needs)
        ref = self._reference(seq, batch, ("completion",)) if form.nets else None
        extras: dict[str, Tensor] = {}
        if "mismatched" in self.needs:
            extras["mismatched"] = self._mismatched(form, seq)
        loss = scored_loss(form, seq, ref, self.running, extras)
        value = self._descend(form, seq, loss)
        return {**self._finish(value), "length": float(seq.length.mean())}

    def _mismatched(self, form: Scored, seq: Sequences) -> Tensor:
        """The log-ratio to the reference of each prompt with the next row's answer, [B]."""
        other = seq.clone()
        for name in ("action", "mask"):
            setattr(other, name, getattr(seq, name).roll(-1, 0))
        mine = score_all(self.policy, other, self.piece)
        ref = self.twins["reference"].logps(other, self.piece)
        return self.running.part(
            form.ratio or summed(), (steps_of(other, mine, ref_logp=ref),), "ratio"
        )

    # ------------------------------------------------------------------------ policy gradients

    def _improve(self, form: PolicyGradient, batch: Any) -> dict[str, float]:
        seq: Sequences = trimmed(batch.sequences)
        _check_groups(form, seq, self.needs)
        columns: dict[str, Any] = {}
        if "reference" in self.twins or "ref_logp" in self.needs:
            if "reference" not in self.twins:
                raise InputError("a part reads the reference, but the form names none: "
                                 "nets={'reference': copy('policy')}")  # fmt: skip
            columns["ref_logp"] = self.twins["reference"].logps(seq, self.piece)
            seq = with_columns(seq, ref_logp=columns["ref_logp"])
        for i, signal in enumerate(form.signals):
            with torch.no_grad():
                seq = self.running.part(signal, (self.view, seq), f"signals.{i}")
        known = self._anchor(form, seq, batch, columns)
        with torch.no_grad():
            found = self.running.part(form.advantage, (seq,), "advantage")
            columns |= found if isinstance(found, dict) else {"advantage": found}
            seq, columns, known, kept_share = self._selected(form, seq, columns, known)
        if not agreed(int(seq.mask.any())):
            return {"kept": 0.0, "length": 0.0}
        notes = {"kept": kept_share, "length": float(seq.length.mean())}
        for epoch in range(form.epochs):
            for index in self._minibatches(len(seq), form.minibatches, seq.mask.device):
                fresh = known if epoch == 0 and index is None else None
                notes |= self._minibatch(form, seq, columns, index, fresh, batch)
        return notes

    def _anchor(
        self, form: PolicyGradient, seq: Sequences, batch: Any, columns: dict[str, Any]
    ) -> TokenStats | None:
        """Fills `anchor_logp`, unless the one gradient step makes it the policy itself."""
        asked = [n for n in self.needs if isinstance(n, str) and n.startswith("anchor_")]
        if asked:  # statistics of the anchor, which is the policy as it is now
            stats = score_all(self.policy, seq, self.piece, self.needs)
            columns["anchor_logp"] = stats.logp
            columns |= {n: stats.statistics[n.removeprefix("anchor_")] for n in asked}
            return stats
        if "anchor" in self.twins:
            columns["anchor_logp"] = self.twins["anchor"].logps(seq, self.piece)
            return None
        if form.epochs * form.minibatches == 1:
            return None
        if batch.exact and seq.behavior_logp is not None:
            columns["anchor_logp"] = seq.behavior_logp
            return None
        stats = score_all(self.policy, seq, self.piece, self.needs)
        columns["anchor_logp"] = stats.logp
        return stats

    def _selected(
        self, form: PolicyGradient, seq: Sequences, columns: dict[str, Any],
        known: TokenStats | None,
    ) -> tuple[Sequences, dict[str, Any], TokenStats | None, float]:  # fmt: skip
        if form.select is None:
            return seq, columns, known, 1.0
        weight = self.running.part(form.select, (seq,), "select")
        kept = float(share_kept(weight))
        rows = weight.nonzero()[:, 0]
        if world() > 1 and not len(rows):  # processes keep step: a row of no weight
            rows = rows.new_zeros(1)
        seq = seq[rows]
        seq.mask = seq.mask * weight[rows, None]
        columns = {k: v[rows] for k, v in columns.items()}
        return seq, columns, None if len(rows) < len(weight) else known, kept

    def _minibatches(self, n: int, count: int, device: torch.device) -> list[Tensor | None]:
        if count == 1:
            return [None]
        order = torch.randperm(n, generator=self.generator).to(device)
        return list(order.tensor_split(agreed(min(count, n), largest=False)))

    def _minibatch(
        self, form: PolicyGradient, seq: Sequences, columns: dict[str, Any], index: Tensor | None,
        known: TokenStats | None, batch: Any,
    ) -> dict[str, float]:  # fmt: skip
        if index is not None:
            seq, columns = seq[index], {k: v[index] for k, v in columns.items()}
        loss = gradient_loss(form, seq, columns, self.running, batch.sources)
        value = self._descend(form, seq, loss, known)
        notes = self._finish(value)
        for i, step in enumerate(form.also):
            if isinstance(step, Train):
                notes |= self._further(step, f"also.{i}.loss", seq, columns)
        return notes

    def _further(
        self, step: Train, at: str, seq: Sequences, columns: dict[str, Any]
    ) -> dict[str, float]:
        seen = with_columns(seq, **{k: v for k, v in columns.items() if isinstance(v, Tensor)})
        loss = self.running.part(step.loss, (self.view, seen), at)
        loss.backward()
        name = ",".join(step.nets)
        self.also[name].step(self.step)
        return {f"{name}_loss": float(loss.detach())}


def still(model: nn.Module) -> None:
    """Dropout off: the ratio of two passes must be that of two policies."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010


def _check_groups(form: LanguageForm, seq: Sequences, needs: tuple[Any, ...]) -> None:
    if "group" not in needs:
        return
    if seq.group is None:
        raise InputError("the recipe compares answers to one prompt, but the data have no groups")
    if bool((group_size(seq) < 2).any()):
        raise InputError(
            "a group has one answer only, and the recipe compares answers to one prompt; give "
            "source=rollouts(group=8), or data with several answers to each prompt"
        )
