"""Evidence of entropy bonus and corridor over turns: hop-search from a poor start."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.agents.entropy_regularized import epo_grpo
from surpass.objectives.divergence import entropy_bonus
from surpass.objectives.entropy_corridor import each_turn
from surpass.objectives.trust import clip
from surpass.parts import linear
from surpass.policies.language import LanguagePolicy
from surpass.tasks.hop_search import HopSearch
from surpass.training.module_run import train_language
from surpass.zoo.language import accuracy

UPDATES, EVERY, RATE = 100, 10, 7e-4
BONUS = {"epo": 0.003, "constant": 0.003, "falling": 0.003}
SIZES: dict[str, Any] = {"batch": 64, "group": 8, "horizon": 4, "turns": 6, "beta": 0.0}


@dataclass
class Seen:
    """Percent right now and then, and the mean entropy of every batch."""

    right: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)

    @property
    def ended(self) -> float:
        """The mean of the last three looks."""
        return sum(self.right[-3:]) / 3

    @property
    def spread(self) -> float:
        """The deviation of the entropy over the last half."""
        late = self.entropy[len(self.entropy) // 2 :]
        mean = sum(late) / len(late)
        return (sum((h - mean) ** 2 for h in late) / (len(late) - 1)) ** 0.5


def arm(name: str, bonus: float) -> Any:
    """One of the ways to treat entropy; everything else is alike."""
    form = epo_grpo(bonus, updates=UPDATES, lr=RATE, **SIZES)
    held = each_turn() * entropy_bonus()
    trusts = {
        "epo": form.trust, "constant": clip() + bonus * held,
        "falling": clip() + linear(bonus, 0.0, steps=UPDATES) * held,
        "none": clip() + 0.0 * held,
    }  # fmt: skip
    return replace(form, trust=trusts[name])


def trained(name: str, bonus: float, policy: LanguagePolicy, seed: int) -> Seen:
    """Train a copy, and watch."""
    task, seen = HopSearch(world=seed), Seen()

    def look(step: int, notes: dict[str, float], now: LanguagePolicy) -> None:
        seen.entropy.append(notes.get("entropy", seen.entropy[-1] if seen.entropy else 0.0))
        if step % EVERY == 0:
            seen.right.append(100 * accuracy(now, task, seed=12345))

    train_language(arm(name, bonus), model=copy.deepcopy(policy), task=task, steps=UPDATES,
                   seed=seed, callback=look)  # fmt: skip
    return seen


@evidence(
    "epo",
    claim="where one conversation in thirty ends right, a bonus with a corridor ends 3 points "
    "above GRPO with no bonus, a constant and a falling one, and its entropy spreads less",
    baseline="the best on each seed of GRPO, GRPO with a constant bonus and with one that falls to "
    "0, at the same rate; a bonus of 0.003 for all, the better of 0.003 and 0.03 for the constant "
    "one on seeds 100 and 101",
    metric="percent of 512 held-out questions answered rightly, mean of the last three of ten "
    "looks in 100 batches of 64 conversations (hop-search)",
    bar=at_least(3.0), seeds=5, minutes=6.0,
    setting="a Llama of 0.1 M weights whose arguments are random 7 times in 10; a new table of "
    "facts for every seed",
)  # fmt: skip
def epo_evidence(seed: int, zoo: Any) -> Result:
    """Also: the spread of the entropy; reported: each of the others."""
    policy = zoo("hop-weak").policy
    ours = trained("epo", BONUS["epo"], policy, seed)
    names = ("none", "constant", "falling")
    others = {n: trained(n, BONUS.get(n, 0.0), policy, seed) for n in names}
    return Result(
        ours.ended, max(seen.ended for seen in others.values()),
        also={
            "deviation of the entropy over the last half, to a constant bonus": (
                ours.spread, others["constant"].spread, at_most(0.7, times=True)),
            **{f"percent, against {what}": (ours.ended, others[n].ended) for n, what in (
                ("none", "no bonus"), ("constant", "a constant bonus"),
                ("falling", "a falling bonus"))},
        },
    )  # fmt: skip
