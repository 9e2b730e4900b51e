"""Evidence for rules that people answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.ope.strategic import Rule, cserm, plain_rule
from surpass.tasks.strategic import People, clusters, tumors


def accuracy(people: People, rule: Rule, strategic: bool = True) -> float:
    """On 4,000 new people, the same for every rule, in percent."""
    rng = np.random.default_rng(12345)
    return people.accuracy(rule.w, rule.b, 4000, rng, strategic)


def rivals(people: People, seed: int) -> tuple[Rule, Rule]:
    """Plain and strategic risk minimization on 1,000 people."""
    x, y = people.labeled(1000, np.random.default_rng(seed))
    return plain_rule(x, y), plain_rule(x, y, people.reach)


@evidence(
    "cserm",
    claim="where moving makes people better, learning the outcome after the move beats strategic "
    "learning with fixed labels by 5 points; where it can harm, it reaches 95 % and fixed labels "
    "at most 60 %; where only unseen places help, exploration finds them",
    setting="three populations of two columns and semi-synthetic tumors; 1,000 clean people, 200 a "
    "round",
    baseline="strategic hinge with the labels of before the move",
    metric="percent right after people moved, population `improve`",
    bar=at_least(5.0),
    minutes=3,
    note="Harm beyond the island is learned as claimed. Where chance blurs the boundary both rules "
    "push people far enough to be nearly always right, on tumors fixed labels are nearly perfect "
    "too, and exploration by low density rarely meets the one unseen place of XOR that helps.",
)
def cserm_evidence(seed: int, zoo: Any) -> Result:
    better, island, xor, measured = (
        clusters("improve"), clusters("island"), clusters("xor"), tumors(seed))  # fmt: skip
    plain, fixed = rivals(better, seed)
    ours = accuracy(better, cserm(rounds=3, explore=0.0, seed=seed).solve(better))
    harmed = accuracy(island, rivals(island, seed)[1])
    safe = accuracy(island, cserm(rounds=4, explore=0.0, seed=seed).solve(island))
    calm, bold = (
        accuracy(xor, cserm(6, 500, explore=e, decay=0.6, seed=seed).solve(xor)) for e in (0.0, 1.0)
    )
    medical = accuracy(measured, cserm(rounds=2, explore=0.0, seed=seed).solve(measured))
    return Result(
        ours,
        accuracy(better, fixed),
        {
            "against a plain rule among people who stay, population `improve`": (
                ours, accuracy(better, plain, strategic=False), at_least(0.0)),
            "percent right, population `island`": (safe, 95.0, at_least(0.0)),
            "percent right of fixed labels, population `island`": (harmed, 60.0, at_most(0.0)),
            "percent right with exploration, population `xor`": (bold, 95.0, at_least(0.0)),
            "with exploration against without, population `xor`": (bold, calm),
            "percent right, tumors": (
                medical, accuracy(measured, rivals(measured, seed)[1]), at_least(3.0)),
        },
    )  # fmt: skip
