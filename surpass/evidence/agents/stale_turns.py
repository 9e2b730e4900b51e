"""Evidence of PPO on rollouts of many turns that are used for many steps: hop-search, 32 steps a
batch at a rate at which plain PPO breaks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.forms import Descent
from surpass.methods.agents.stale_turns import s_ppo, st_ppo, turn_ppo
from surpass.objectives.reduce import masked_mean
from surpass.objectives.trust import clip, unclipped
from surpass.objectives.views import Steps
from surpass.parts import Evaluate
from surpass.policies.language import LanguagePolicy
from surpass.tasks.hop_search import HopSearch
from surpass.training.module_run import train_language
from surpass.zoo.language import accuracy

UPDATES, EVERY, RATE, SAFE = 24, 4, 4e-4, 1.5e-4
SIZES: dict[str, Any] = {
    "batch": 64, "horizon": 4, "turns": 6, "epochs": 4, "minibatches": 8, "lr": RATE,
    "value_lr": 1e-3,
}  # fmt: skip


@dataclass
class Seen:
    """What a run showed: the accuracy now and then, and per step the share of decisions that the
    clip holds back, and by what the gradient was divided."""

    accuracy: list[float] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)
    divided: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Watched:
    """A trust rule that notes how much it clips."""

    inner: Any
    seen: Seen

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any:
        """The rule's value."""
        steps: Steps = seen[0]
        held = 1 - unclipped()(steps.filled(log_ratio=steps.log_ratio.detach()))
        self.seen.clipped.append(float(masked_mean(held, steps.mask)))
        return part(self.inner, seen, "inner")


@dataclass(frozen=True)
class Divided:
    """A gradient rule that notes by what it divides; or, with `instead`, divides by such numbers of
    another run."""

    inner: Any
    seen: Seen
    instead: list[float] | None = None

    def evaluate(self, seen: tuple[Any, ...], part: Evaluate) -> Any:
        """The gradient that is followed."""
        known = Remembered(seen[0])
        if self.instead is not None:
            by = self.instead[len(self.seen.divided) % len(self.instead)]
            self.seen.divided.append(by)
            return {n: g / by for n, g in known.grad().items()}
        out = part(self.inner, (known,), "inner")
        before = known.grad("clip")
        self.seen.divided.append(float(size(before) / size(out).clamp_min(1e-12)))
        return out


class Remembered:
    """A descent whose gradients are computed once."""

    def __init__(self, inner: Descent) -> None:
        self.inner, self.terms, self.parameters = inner, inner.terms, inner.parameters
        self.found: dict[tuple[str, ...], dict[str, Tensor]] = {}

    def grad(self, *names: str) -> dict[str, Tensor]:
        """The gradient of the sum of some terms."""
        if names not in self.found:
            self.found[names] = self.inner.grad(*names)
        return self.found[names]


def size(gradient: dict[str, Tensor]) -> Tensor:
    """Its length as one vector."""
    return torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt()


def run(
    make: Callable[[float], Any], lr: float, policy: LanguagePolicy, task: HopSearch, seed: int,
    instead: list[float] | None = None,
) -> Seen:  # fmt: skip
    """Train a copy, and watch."""
    seen, own, form = Seen(), copy.deepcopy(policy), make(lr)
    if form.gradient is not None or instead is not None:
        form = replace(form, gradient=Divided(form.gradient, seen, instead))
    form = replace(form, trust=Watched(form.trust, seen))

    def look(step: int, notes: dict[str, float], now: LanguagePolicy) -> None:
        if step % EVERY == 0:
            seen.accuracy.append(100 * accuracy(now, task, prompts=256, seed=12345))

    train_language(form, model=own, task=task, steps=UPDATES, seed=seed, callback=look)
    return seen


def plain(lr: float) -> Any:
    """PPO with a ratio per token, everything else alike."""
    return replace(s_ppo(**{**SIZES, "lr": lr}), trust=clip(), gradient=None)


def ended(seen: Seen) -> float:
    """The mean of the last three looks."""
    return sum(seen.accuracy[-3:]) / 3


@evidence(
    "st-ppo",
    claim="at a rate at which plain PPO breaks, ratios per turn with divided steps end 5 points "
    "higher, and divided steps alone do so too; what counts is which steps are divided, not by how "
    "much",
    baseline="PPO with a ratio per token at the same rate, 4e-4, above the best one on other "
    "seeds; the same division with its divisors in random order",
    metric="percent of 256 held-out questions answered rightly, mean of the last three of six "
    "looks in 24 batches of 64 conversations, 32 steps each (hop-search)",
    bar=at_least(5.0), seeds=5, minutes=8.0,
    setting="a Llama of 0.1 M weights that answers one question in four; a new table of facts for "
    "every seed",
    note="No rate was found at which plain PPO breaks and the divided steps do not: at 4e-4 it "
    "does not break (30 percent, ours 29), at 6e-4 all fall to 1 to 5 percent on the one seed "
    "that was run, and PPO at its best rate reaches 51.",
)  # fmt: skip
def st_ppo_evidence(seed: int, zoo: Any) -> Result:
    """Also: S-PPO, the control; reported: PPO at its best rate, runs that end below their start,
    and how much is clipped."""
    task, policy = HopSearch(world=seed), zoo("hop-reference").policy
    start = 100 * accuracy(policy, task, prompts=256, seed=12345)

    def at(make: Any, lr: float = RATE, instead: list[float] | None = None) -> Seen:
        return run(lambda rate: make(rate), lr, policy, task, seed, instead)

    both = at(lambda lr: st_ppo(**{**SIZES, "lr": lr}))
    steps = at(lambda lr: s_ppo(**{**SIZES, "lr": lr}))
    theirs, slow = at(plain), at(plain, SAFE)
    order = torch.randperm(len(both.divided), generator=torch.Generator().manual_seed(seed))
    shuffled = [both.divided[i] for i in order.tolist()]
    control = at(lambda lr: turn_ppo(**{**SIZES, "lr": lr}), instead=shuffled)

    def share(seen: Seen) -> float:
        return sum(seen.clipped) / len(seen.clipped)

    return Result(
        ended(both), ended(theirs),
        also={
            "percent, divided steps alone (S-PPO)": (ended(steps), ended(theirs), at_least(5.0)),
            "percent, against divisors in random order": (
                ended(both), ended(control), at_least(0.0)),
            "percent, against PPO at 1.5e-4, its best rate": (ended(both), ended(slow)),
            "ends below its start": (
                float(both.accuracy[-1] < start), float(theirs.accuracy[-1] < start)),
            "share of decisions clipped": (share(both), share(theirs)),
            "share of decisions clipped, S-PPO": (share(steps), share(theirs)),
        },
    )  # fmt: skip
