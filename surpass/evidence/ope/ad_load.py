"""Evidence for two outcomes with a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surpass.data.records import Decisions
from surpass.evaluation.decisions import evaluate
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.improve.scoring import Rows
from surpass.methods.decisions.ascent import Ascent
from surpass.methods.decisions.budgeted import Budgeted
from surpass.objectives.counterfactual import (
    counterfactual_risk,
    doubly_robust_gain,
    importance_gain,
)
from surpass.tasks.feed import LEVELS, Feed, Sessions

ROWS, SESSIONS, CHECKS = 30_000, 6_000, 10
MULTIPLIERS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0)


def rows_of(log: Decisions) -> Rows:
    """The learning rows of a log."""
    return Rows.of(log, float(log.reward.min()), float(log.reward.max()))


def played(feed: Feed, policy: nn.Module, seed: int, blind: bool = False) -> Sessions:
    """What a policy earns, over new sessions."""

    @torch.no_grad()
    def act(x: Tensor) -> Tensor:
        uniform = x.new_full((len(x), LEVELS), 1 / LEVELS)
        return policy(torch.zeros_like(x) if blind else x, uniform)

    return feed.run(act, SESSIONS, np.random.default_rng(seed))[1]


def static(feed: Feed, seed: int) -> Sessions:
    """The best fixed level: that of the largest revenue per session, since longer sessions count in
    it too."""
    found = [
        feed.run(lambda x, a=a: torch.eye(LEVELS)[a].expand(len(x), -1), SESSIONS,
                 np.random.default_rng(seed))[1]
        for a in range(LEVELS)
    ]  # fmt: skip
    return max(found, key=lambda s: s.revenue)


def dominance(front: list[Sessions], rival: Sessions) -> float:
    """The largest gain in percent that some point of the front has in both coordinates at once."""
    return max(
        100 * min(s.fetches / rival.fetches, s.revenue / rival.revenue) - 100 for s in front
    )  # fmt: skip


def learner(objective: Any, iterations: int = 20) -> Budgeted:
    return Budgeted(
        "front", Ascent("front", counterfactual_risk(objective), strengths=(4.0,),
                        iterations=iterations)
    )  # fmt: skip


def fronts(feed: Feed, seed: int) -> tuple[list[Sessions], list[Sessions]]:
    """The front of policies that see the context, and that of policies that do not."""
    log, _ = feed.log(ROWS, np.random.default_rng(seed))
    rows = rows_of(log)
    blind = replace(rows, context=torch.zeros_like(rows.context))
    ours, without = [], []
    for mu in MULTIPLIERS:
        policy = learner(doubly_robust_gain()).at(rows, mu).policy
        ours.append(played(feed, policy, seed))
        other = learner(importance_gain(), 10).at(blind, mu).policy
        without.append(played(feed, other, seed, blind=True))
    return ours, without


def coverage(feed: Feed, seed: int, mu: float = 3.0, n: int = 500) -> tuple[float, float]:
    """How often the 95 % interval of revenue - mu left covers the truth, in percent: on fresh rows,
    and on the rows that the policy was learned from."""
    rng = np.random.default_rng(seed)
    pool, truth = feed.log(20_000, rng)
    worth = truth["revenue"] - mu * truth["left"]
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(CHECKS):
        log, _ = feed.log(n, rng)
        other, _ = feed.log(n, rng)
        policy = learner(doubly_robust_gain(), 10).at(rows_of(log), mu).policy
        with torch.no_grad():
            true = float((policy(pool.context, pool.propensities) * worth).sum(1).mean())
        for fresh, on in ((True, other), (False, log)):
            on.reward = on.reward - mu * on.cost  # type: ignore[operator]
            found = evaluate({"p": policy}, on, estimators=("dr",)).results[0]
            hits[fresh].append(found.low <= true <= found.high)
    return 100 * float(np.mean(hits[True])), 100 * float(np.mean(hits[False]))


@evidence(
    "ad-load",
    claim="some policy of the front earns more per session than the best fixed level and keeps "
    "people longer at once; without differences between people nothing is gained; intervals cover "
    "on fresh rows",
    setting="simulated feed, 30,000 fetches of uniformly random levels, two kinds of people, "
    "played for 6,000 sessions",
    baseline="the fixed level with the largest revenue per session",
    metric="smaller gain of the two (revenue, fetches) in percent, best of six multipliers",
    bar=at_least(0.0, alone=True),
    seeds=10,
    minutes=3,
)  # fmt: skip
def ad_load_evidence(seed: int, zoo: Any) -> Result:
    feed, alike = Feed(), Feed(same=True)
    rival = static(feed, seed)
    ours, without = fronts(feed, seed)
    gain = dominance(ours, rival)
    none, _ = fronts(alike, seed)
    fresh, own = coverage(feed, seed)
    return Result(
        gain,
        0.0,
        {
            "against a front that does not see the context, percent": (
                gain, dominance(without, rival), at_least(0.0)),
            "percent gained where all people are alike": (
                dominance(none, static(alike, seed)), 0.0, at_most(2.0, alone=True)),
            "percent of intervals that cover on fresh rows": (fresh, 95.0, at_least(-10.0)),
            "percent that cover on the rows learned from": (own, fresh),
        },
    )  # fmt: skip
