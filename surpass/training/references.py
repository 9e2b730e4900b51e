"""Copies of a language model in training: fixed, synced, moving average, or a model handed in.

A fixed copy of a model with fresh adapters is that model with its adapters off; adapters that were
trained before are part of what is copied. A fixed copy on fixed data
needs no second model either: its log-probs are computed before the first update and kept with the
rows. Only otherwise a second model is held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from surpass.data.records import Sequences
from surpass.errors import InputError
from surpass.forms import Copy, Ema, Given, Snapshot
from surpass.parts import Schedule
from surpass.policies.language import LanguagePolicy, attended
from surpass.policies.sharding import whole_of
from surpass.policies.token_logps import TokenStats
from surpass.training.pieces import joined, score_all

__all__ = ["Stored", "Twin", "twin"]


class Twin:
    """A frozen policy that follows another by a rule; `logps(seq)` are its log-probs [B, T]."""

    def __init__(self, policy: LanguagePolicy, rule: Snapshot, given: Any = None) -> None:
        self.of, self.rule = policy, rule
        fixed = isinstance(rule, Copy) and rule.every is None
        self._by_adapters = fixed and policy.adapted and not policy.begun and _silent(policy)
        self.updates = 0
        self.shown: LanguagePolicy | None = None
        self.late: list[dict[str, Tensor]] = []
        if isinstance(rule, Given):
            if given is None:
                raise InputError(f"the recipe needs a model as {rule.role!r}; give {rule.role}=...")
            if not isinstance(given, LanguagePolicy):
                given = LanguagePolicy(given, policy.tokenizer, policy.temperature)
            self.shown = _read_as(policy, given.model, given.temperature)
        elif not self.by_adapters:
            self.shown = _frozen(policy)

    @property
    def by_adapters(self) -> bool:
        """Whether switching adapters off gives it."""
        return self._by_adapters

    def logps(self, seq: Sequences, size: int) -> Tensor:
        """Log-probs of the answers, without gradient."""
        if self.by_adapters:
            with self.of.gathered(), self.of.without_adapters():
                return score_all(self.of, seq, size).logp
        assert self.shown is not None
        return score_all(self.shown, seq, size).logp

    @torch.no_grad()
    def score(self, seq: Sequences, needs: tuple[Any, ...] = ()) -> TokenStats:
        """Log-probs and statistics of the answers, without gradient."""
        if self.by_adapters:
            with self.of.gathered(), self.of.without_adapters():
                return self.of.score(seq, needs)
        assert self.shown is not None
        return self.shown.score(seq, needs)

    def moved(self, step: int) -> None:
        """The policy has been updated once more: follow, where the rule says so."""
        self.updates += 1
        rule, every = self.rule, getattr(self.rule, "every", None)
        if isinstance(rule, Ema) and self.updates % rule.every == 0:
            tau = rule.tau.at(step) if isinstance(rule.tau, Schedule) else float(rule.tau)
            if rule.corrected:  # the weights of all past states add up to one from the start
                tau = tau / (1 - (1 - tau) ** (self.updates + 1))
            self._follow(tau)
        elif isinstance(rule, Copy) and isinstance(every, int) and self.updates % every == 0:
            self._refresh(rule.lag)

    def _follow(self, tau: float) -> None:
        assert self.shown is not None
        with torch.no_grad():
            for mine, new in zip(
                self.shown.model.parameters(), self.of.model.parameters(), strict=True
            ):
                mine.lerp_(whole_of(new.detach()), tau)

    def _refresh(self, lag: int) -> None:
        assert self.shown is not None
        now = {k: whole_of(v.detach()).clone() for k, v in self.of.model.state_dict().items()}
        self.late.append(now)
        if len(self.late) > lag:
            self.shown.model.load_state_dict(self.late.pop(0))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: nothing where the copy can be made again."""
        out = {"updates": torch.tensor(self.updates)}
        if self.shown is not None and not isinstance(self.rule, Given):
            out |= {f"model.{k}": v for k, v in self.shown.model.state_dict().items()}
        for i, late in enumerate(self.late):
            out |= {f"late.{i}.{k}": v for k, v in late.items()}
        return out

    def load(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.updates = int(state["updates"])
        mine = {k[6:]: v for k, v in state.items() if k.startswith("model.")}
        if not isinstance(self.rule, Given):  # as the run began, whatever adapters are at hand
            self._by_adapters = not mine
            self.shown = (self.shown or _frozen(self.of)) if mine else None
        if mine and self.shown is not None:
            self.shown.model.load_state_dict(mine)
        numbers = sorted({int(k.split(".")[1]) for k in state if k.startswith("late.")})
        self.late = [
            {k.split(".", 2)[2]: v for k, v in state.items() if k.startswith(f"late.{i}.")}
            for i in numbers
        ]


def _silent(policy: LanguagePolicy) -> bool:
    """Whether a model's adapters change nothing yet."""
    ids = torch.arange(8, device=policy.device)[None] % policy.vocabulary
    with torch.no_grad(), policy.precise():
        mine = policy.model(input_ids=ids, use_cache=False).logits
        with policy.without_adapters():
            return torch.equal(mine, policy.model(input_ids=ids, use_cache=False).logits)


def _frozen(policy: LanguagePolicy) -> LanguagePolicy:
    model: nn.Module = copy.deepcopy(policy.model)
    model.requires_grad_(False)
    return _read_as(policy, model.eval(), policy.temperature)


def _read_as(policy: LanguagePolicy, model: nn.Module, temperature: float) -> LanguagePolicy:
    """Another model in the precision of a policy, so that equal weights give equal log-probs."""
    out = LanguagePolicy(model, policy.tokenizer, temperature)
    out.precision = policy.precision
    return out


def twin(policy: LanguagePolicy, rule: Any, given: Any = None) -> Twin:
    """The copy that a form names.

    Raises:
        InputError: for rules that language models cannot follow.
    """
    if not isinstance(rule, Ema | Copy | Given):
        raise InputError(f"a language model can be followed by ema, copy or given, not {rule!r}")
    if isinstance(rule, Ema | Copy) and rule.of != "policy":
        raise InputError(f"a snapshot of {rule.of!r}: only the policy has snapshots here")
    return Twin(policy, rule, given)


class Stored:
    """Log-probs of the policy as it was at the start, by row of a fixed log: no second model.

    `fill` is called once, before the first update, with every row that training will visit.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], Tensor] = {}

    def fill(
        self, policy: LanguagePolicy, sides: tuple[str, ...], rows: list[int],
        make: Callable[[str, list[int]], Sequences], size: int, length: Callable[[int], int],
    ) -> None:  # fmt: skip
        """Compute the rows that are missing, those of like length together, and both sides of a
        pair together, since they share their prompt."""
        with policy.gathered():
            self._fill(policy, sides, rows, make, size, length)

    def _fill(
        self, policy: LanguagePolicy, sides: tuple[str, ...], rows: list[int],
        make: Callable[[str, list[int]], Sequences], size: int, length: Callable[[int], int],
    ) -> None:  # fmt: skip
        missing = sorted((i for i in set(rows) if (sides[0], i) not in self.rows), key=length)
        for start in range(0, len(missing), size):
            these = missing[start : start + size]
            parts = [make(side, these) for side in sides]
            seq = parts[0] if len(parts) == 1 else joined(*parts)
            logp = score_all(policy, seq, len(seq)).logp.cpu()
            ends = attended(seq).sum(-1).tolist()
            names = [(side, i) for side in sides for i in these]
            for name, row, end in zip(names, logp, ends, strict=True):
                self.rows[name] = row[:end].clone()

    def get(self, side: str, rows: list[int], width: int) -> Tensor:
        """Log-probs of some rows, [B, width]."""
        out = torch.zeros(len(rows), width)
        for place, i in enumerate(rows):
            kept = self.rows[side, i]
            out[place, : len(kept)] = kept
        return out

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {f"{side}.{i}": v for (side, i), v in self.rows.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.rows = {(k.split(".")[0], int(k.split(".")[1])): v for k, v in state.items()}
