"""Evidence of rewards per turn: hop-search from a poor start, where few conversations end right."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.agents.information_gain import igpo
from surpass.objectives.advantage import group_standardized, with_columns
from surpass.objectives.turns import last_decision, turn_credit, turn_ends
from surpass.parts import Nets, as_part
from surpass.policies.beliefs import information_gain
from surpass.policies.language import LanguagePolicy
from surpass.tasks.hop_search import HopSearch
from surpass.training.language_rollouts import RolloutStream, TaskPrompts
from surpass.training.module_run import train_language
from surpass.zoo.language import accuracy

UPDATES, EVERY = 100, 20
RATES = {"outcome": 7e-4, "gain": 5e-4, "logprob": 5e-4, "together": 5e-4, "oracle": 5e-4}
SIZES: dict[str, Any] = {"batch": 64, "group": 8, "horizon": 4, "turns": 6, "beta": 0.0}


def arm(name: str, task: HopSearch, lr: float) -> Any:
    """One of the ways to pay turns; everything else is alike."""

    def oracle(nets: Nets, seq: Any) -> Any:
        turns = task.worth(seq.prompt, seq.action, seq.mask, 0.5)
        useful = torch.nn.functional.pad(turns.useful.float(), (0, 1))
        return with_columns(seq, gain=useful.gather(1, seq.turn.clamp_min(0)) * turn_ends(seq))

    form = igpo(belief="prob", lr=lr, **SIZES)
    return {
        "outcome": replace(form, advantage=group_standardized(), signals=()),
        "oracle": replace(form, signals=(as_part(oracle),)),
        "gain": form,
        "logprob": igpo(lr=lr, **SIZES),
        "together": igpo(belief="prob", normalize="together", lr=lr, **SIZES),
    }[name]


def solved(
    name: str, policy: LanguagePolicy, task: HopSearch, seed: int, updates: int = UPDATES
) -> list[float]:
    """Percent of 512 held-out questions answered rightly by a trained copy, now and then."""
    found: list[float] = []

    def look(step: int, notes: dict[str, float], now: LanguagePolicy) -> None:
        if step % EVERY == 0:
            found.append(100 * accuracy(now, task, seed=12345))

    train_language(
        arm(name, task, RATES[name]), model=copy.deepcopy(policy), task=task, steps=updates,
        seed=seed, callback=look,
    )  # fmt: skip
    return found


def agreement(
    policy: LanguagePolicy, task: HopSearch, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Over 512 conversations of the policy, by information gain and by outcome: the correlation of
    credit with what each turn before the last was truly worth, and the share of groups in which
    some turn has any."""
    form = igpo(**{**SIZES, "batch": 512})
    stream = RolloutStream(policy, TaskPrompts(task, seed), form.source, seed=seed, answers=True)
    seq: Any = stream.next().sequences
    seq = information_gain("prob")({"policy": policy}, seq)  # type: ignore[arg-type]
    worth = task.worth(seq.prompt, seq.action, seq.mask)
    ends, before = turn_ends(seq) > 0, 1 - last_decision(seq)

    def measured(credit: Tensor) -> tuple[float, float]:
        inner = before[ends] > 0
        columns = torch.stack([credit[ends][inner], worth.advantage[worth.there][inner]])
        taught = (credit.abs().amax(-1) > 1e-6).view(-1, SIZES["group"]).any(-1)
        return float(torch.corrcoef(columns)[0, 1]), float(taught.float().mean())

    gain, outcome = measured(turn_credit()(seq)), measured(group_standardized()(seq))
    return (gain[0], outcome[0]), (gain[1], outcome[1])


@evidence(
    "igpo-info-gain",
    claim="where one conversation in thirty ends right, paying turns for what they add to the "
    "belief in the answer learns faster than outcomes alone, by 5 points over the whole curve; "
    "gains and outcomes have to be standardized apart",
    baseline="the same update on outcomes standardized in the group (GRPO) at 7e-4, the best of "
    "five rates on seeds 100 to 102 (15, 21, 19, 26, 22 percent from 2.5e-4 to 1e-3); ours at "
    "5e-4, the best of three there (27, 39, 14 percent from 2.5e-4 to 1e-3), with probabilities as "
    "beliefs (log-probs: 25)",
    metric="percent of 512 held-out questions answered rightly, mean of five looks in 100 batches "
    "of 64 conversations (hop-search)",
    bar=at_least(5.0), seeds=10, minutes=7.0,
    setting="a Llama of 0.1 M weights whose arguments are random 7 times in 10; a new table of "
    "facts for every seed",
    note="Ours came out 10.6 points above on average (-4 to 25) and ahead on 8 seeds of 10, yet "
    "one of its runs and two of the outcomes' did not leave the start within 100 batches, "
    "which leaves ten seeds open; gains and outcomes standardized together did nearly as well"
    " (2 less, -6 to 10).",
)  # fmt: skip
def igpo_evidence(seed: int, zoo: Any) -> Result:
    """Also: joint standardization; reported: beliefs as log-probs, pay for truly useful turns, the
    end of the curve, a good start, and how well credit fits what turns were worth."""
    task = HopSearch(world=seed)
    poor, good = zoo("hop-weak").policy, zoo("hop-clean").policy
    curve = {name: solved(name, poor, task, seed) for name in RATES}
    mean = {name: sum(found) / len(found) for name, found in curve.items()}
    able = [solved(n, good, task, seed, updates=20)[-1] for n in ("gain", "outcome")]
    credit, taught = agreement(poor, task, seed)
    return Result(
        mean["gain"], mean["outcome"],
        also={
            "percent, against gains and outcomes standardized together": (
                mean["gain"], mean["together"], at_least(5.0)),
            "percent at the end": (curve["gain"][-1], curve["outcome"][-1]),
            "percent, with log-probs as beliefs": (mean["logprob"], mean["outcome"]),
            "percent, against paying the turns that are useful": (mean["gain"], mean["oracle"]),
            "percent after 20 batches from a good start (two in three right)": tuple(able),
            "share of groups with any credit at the start": taught,
            "correlation of credit with the true advantage, turns before the last": credit,
        },
    )  # fmt: skip
