"""Two outcomes at once: the most reward whose cost stays within a budget.

The log has `reward` and `cost` (for advertisements: revenue, and a session that ended). A policy
climbs the doubly robust estimate of reward - mu cost; mu is raised until rows that it did not learn
from say that the cost is within the reference's, times 1 + slack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.methods.decisions.ascent import Ascent, learning_query
from surpass.methods.decisions.candidate import Candidate, Label, Learner
from surpass.objectives.counterfactual import counterfactual_risk, doubly_robust_gain
from surpass.policies.tilted import Mixture
from surpass.registry import system

__all__ = ["Budgeted", "ad_load"]


@dataclass(frozen=True)
class Budgeted:
    """A learner: maximize reward subject to a budget of cost, by a multiplier.

    Attributes:
        name: in labels. inner: climbs reward - mu cost.
        slack: the cost may exceed the reference's by that share of it (negative: must be lower).
        widest: the largest multiplier, in units of sd(reward) / sd(cost).
        halvings: of the interval that holds the multiplier.
        held: share of the rows on which the cost is judged.
    """

    name: str
    inner: Ascent
    slack: float = 0.0
    widest: float = 8.0
    halvings: int = 5
    held: float = 0.3

    def labels(self) -> tuple[Label, ...]:
        """One."""
        return (Label(self.name, self.name, {"slack": self.slack}, self.name, 1.0),)

    def fit(self, rows: Any, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        """The mixture of the two policies on either side of the smallest multiplier that keeps the
        budget, whose estimated cost is the budget; one policy where it does not bind, or none keeps
        it.

        Raises:
            InputError: when the log has no costs, or the cost never varies.
        """
        order = torch.randperm(len(rows.action), generator=torch.Generator().manual_seed(seed))
        cut = int(self.held * len(order))
        judge, learn = rows.take(order[:cut]), rows.take(order[cut:])
        scale, label = _units(rows), self.labels()[0]

        def tried(mu: float) -> tuple[float, Candidate]:
            made = self.at(learn, mu * scale, fitted, seed)
            return self.excess(judge, made.policy, fitted, seed), made

        over, rich = tried(0.0)
        if over <= 0:
            return [Candidate(label, rich.policy)]
        under, cheap = tried(self.widest)
        if under > 0:
            return [Candidate(label, cheap.policy)]
        low, high = 0.0, self.widest
        for _ in range(self.halvings):
            middle = (low + high) / 2
            found, made = tried(middle)
            if found > 0:
                low, over, rich = middle, found, made
            else:
                high, under, cheap = middle, found, made
        share = -under / (over - under)
        both = Mixture([rich.policy, cheap.policy], (share, 1 - share))
        return [Candidate(label, both)]

    def at(
        self, rows: Any, multiplier: float, fitted: nn.Module | None = None, seed: int = 0
    ) -> Candidate:
        """The policy for reward - multiplier cost: one point of the front between the two."""
        reward = rows.reward - multiplier * rows.cost
        both = replace(rows, reward=reward, lo=float(reward.min()), hi=float(reward.max()))
        return self.inner.fit(both, fitted, seed)[-1]

    def excess(self, rows: Any, policy: nn.Module, fitted: nn.Module | None, seed: int) -> float:
        """The doubly robust estimate of the policy's cost, less what the budget allows."""
        paid = replace(rows, reward=rows.cost)
        query = learning_query(paid, fitted, seed, most=len(rows.action))
        with torch.no_grad():
            target = policy(rows.context, rows.offered).to(torch.float64)
        more = doubly_robust_gain()(replace(query, target=target))
        return float(more.mean()) - self.slack * float(rows.cost.mean())


def _units(rows: Any) -> float:
    cost: Float[Tensor, "N"] | None = getattr(rows, "cost", None)
    if cost is None:
        raise InputError(
            "a learner with a budget needs what each decision cost; name the column with "
            "--cost NAME, or leave the learner out"
        )
    spread = float(cost.std())
    if not spread > 0:
        raise InputError("every decision cost the same, so no budget can bind; leave it out")
    return float(rows.reward.std()) / spread


@system("ad-load")
def ad_load(slack: float = 0.0, penalty: float = 0.0, decay: float = 1e-4) -> Learner:
    """Climb the doubly robust revenue with satisfaction no worse than the logging policy's.

    Args:
        slack: how much more cost is allowed, as a share of the logging policy's.
        penalty: standard errors taken off the estimate. decay: L2 penalty.
    """
    objective = counterfactual_risk(doubly_robust_gain(), penalty)
    return Budgeted("ad-load", Ascent("ad-load", objective, decay=decay, strengths=(4.0,)), slack)
