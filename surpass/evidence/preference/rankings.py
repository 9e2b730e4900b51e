"""Evidence for rankings: what training on pairs leaves unchanged, on a bandit that is exact."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.preference.rankings import ranking_accuracy
from surpass.objectives.rankings import RankedPairs, Rankings, flips
from surpass.tasks.preference import PreferenceBandit, preference_bandit

CONTEXTS, ACTIONS, PAIRS, SPREAD, BETA, SURE, LOSS = 64, 8, 2000, 10.0, 0.1, 0.9, 0.5


def problem(seed: int) -> tuple[PreferenceBandit, Tensor, Tensor, Tensor]:
    """A bandit whose reference has logits of deviation 10, as sums over some thirty tokens have,
    and pairs of different actions: contexts, and actions with the better one first."""
    bandit = preference_bandit(CONTEXTS, ACTIONS, spread=SPREAD, seed=seed)
    g = torch.Generator().manual_seed(seed + 1)
    x = torch.randint(CONTEXTS, (PAIRS,), generator=g)
    two = torch.rand(PAIRS, ACTIONS, generator=g).argsort(-1)[:, :2]
    paid = bandit.reward[x[:, None], two]
    order = paid.argsort(-1, descending=True)
    won, lost = two.gather(1, order).T
    return bandit, x, won, lost


def ranked(
    bandit: PreferenceBandit, logits: Tensor, x: Tensor, won: Tensor, lost: Tensor
) -> RankedPairs:
    """The pairs under logits [N, A]."""
    logp, ref = logits.log_softmax(-1), bandit.reference
    return RankedPairs(logp[x, won], logp[x, lost], ref[x, won], ref[x, lost],
                       proportion=torch.full((len(x),), SURE, dtype=torch.float64))  # fmt: skip


def descended(bandit: PreferenceBandit, pairs: tuple[Tensor, ...], features: Tensor, lr: float,
              updates: int, stop: float = -math.inf) -> tuple[Tensor, list[float]]:  # fmt: skip
    """Logits after Adam on soft labels, until DPO's loss on the labels falls below `stop`, and the
    share of pairs, along the way, of which the loss alone tells the order."""
    x, won, lost = pairs
    theta = torch.zeros(features.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer, told = torch.optim.Adam([theta], lr), []
    rate, logits = 1 - SURE, bandit.reference
    for step in range(updates):
        logits = bandit.reference + features @ theta
        two = ranked(bandit, logits, x, won, lost)
        z = BETA * (two.margin - two.ref_margin)
        hard = torch.nn.functional.softplus(-z)
        if step % 20 == 0:
            right = flips(hard, -BETA * two.ref_margin)
            told.append(float((right == (two.margin >= 0)).double().mean()))
        if float(hard.mean().detach()) < stop:
            break
        loss = (1 - rate) * hard + rate * torch.nn.functional.softplus(z)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return logits.detach(), told


def first_of_each(x: Tensor) -> Tensor:
    """One pair of each context: several would ask a table for what no order can give."""
    return torch.stack([(x == c).nonzero()[0, 0] for c in x.unique()])


def fixed_by_quarter(found: Rankings, after: RankedPairs) -> list[float]:
    """The share that is right after training, by quarters of how wrong the reference was."""
    wrong = found.hardness > 0
    order = found.hardness[wrong].argsort()
    right = (after.margin >= 0)[wrong][order].double()
    return [float(part.mean()) for part in right.chunk(4)]


@evidence(
    "ranking-accuracy",
    claim="DPO stopped as usual gets the implicit reward of at least 80 percent of pairs right, "
    "and ranks them hardly better than its reference: at least 20 points below the optimum",
    baseline="the reference policy",
    metric="share of pairs that the policy ranks right less that of the reference",
    bar=at_most(0.15), seeds=10, minutes=0.5,
    setting="64 contexts, 8 actions, logits of the reference of deviation 10, 2,000 pairs, beta "
    "0.1, soft labels of 0.9; a log-linear policy, stopped at a loss of 0.5.",
)  # fmt: skip
def rankings_evidence(seed: int, zoo: Any) -> Result:
    """Also: the gap, which pairs were fixed, the loss as a teller, and a table to convergence."""
    bandit, *pairs = problem(seed)
    x, won, lost = pairs
    eye = torch.eye(ACTIONS, dtype=torch.float64)
    features = torch.einsum("nd,ab->nadb", bandit.features, eye).flatten(2)
    logits, told = descended(bandit, (x, won, lost), features, 0.05, 2000, LOSS)
    two = ranked(bandit, logits, x, won, lost)
    found = ranking_accuracy(BETA).measure(two)
    quarters = fixed_by_quarter(found, two)
    falls = max(b - a for a, b in itertools.pairwise(quarters))
    table = torch.eye(CONTEXTS * ACTIONS, dtype=torch.float64).reshape(CONTEXTS, ACTIONS, -1)
    alone = first_of_each(x)
    far, _ = descended(bandit, (x[alone], won[alone], lost[alone]), table, 0.5, 2000)
    at_last = ranking_accuracy(BETA).measure(ranked(bandit, far, x[alone], won[alone], lost[alone]))
    return Result(
        found.accuracy, found.reference,
        also={"implicit reward right": (found.implicit, 0.5, at_least(0.8, alone=True)),
              "optimum less policy": (
                  found.ideal["log"] - found.accuracy, 0.0, at_least(0.2, alone=True)),
              "most that a harder quarter was fixed more than an easier": (
                  falls, 0.0, at_most(0.0, alone=True)),
              "share of pairs whose loss tells the order": (
                  min(told), 1.0, at_least(1.0, alone=True)),
              "optimum less a table trained to the end, a pair a context": (
                  at_last.ideal["log"] - at_last.accuracy, 0.0, at_most(0.01, alone=True))},
    )  # fmt: skip
