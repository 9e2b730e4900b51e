"""Policies that climb an estimate of their own value: policy gradients on logged decisions.

The gradient of the estimate with respect to the policy is exact, since the sum over actions is:
no sampling of actions, no log-derivative trick. A policy is pi ∝ rho exp(f), capped; f is linear or
a small network and starts at 0, which is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.critics.deviations import DeviationModel, Standardizer, deviation_scale
from surpass.methods.decisions.candidate import Candidate, Label, LearningRows, reference_of
from surpass.methods.decisions.threads import threads_for
from surpass.objectives.counterfactual import Objective
from surpass.objectives.views import Query
from surpass.parts import needs_of
from surpass.policies.action_values import ActionValues, LinearValues, MLPValues
from surpass.policies.categorical import Softmax
from surpass.policies.tilted import CAP, Capped, capped

__all__ = ["Ascent", "learning_query"]

_MOST_ROWS = 200_000  # rows used at most: beyond, the learning curve is flat and the time is not


@dataclass(frozen=True)
class Ascent:
    """A learner: maximize `objective` over softmax policies.

    Attributes:
        name: of the learner, in labels.
        objective: a part from a `Query` to [], large where the policy is good.
        hidden: layers of the network; empty for a linear policy.
        decay: L2 penalty per row and squared coefficient of standardized features.
        strengths: c in pi ∝ rho exp(c f / sd(f)), sd(f) being the spread of the learned preferences
            f over actions under the reference: from cautious to all but greedy.
        iterations: of L-BFGS on all rows (linear), or passes over the rows of Adam (network).
        batch: rows of one step of Adam.
        lr: step size of Adam.
        cap: no action gets more than cap + 1 times its reference probability.
    """

    name: str
    objective: Objective
    hidden: tuple[int, ...] = ()
    decay: float = 1e-4
    strengths: tuple[float, ...] = (0.3, 1.0, 4.0)
    iterations: int = 40
    batch: int = 1024
    lr: float = 5e-3
    cap: float = CAP

    def labels(self) -> tuple[Label, ...]:
        """One for each strength."""
        family = self.name
        base: dict[str, Any] = {"hidden": list(self.hidden), "decay": self.decay}
        return tuple(
            Label(f"{family}(c={c:g})", self.name, {**base, "strength": c}, family, c)
            for c in self.strengths
        )

    def fit(self, rows: LearningRows, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        """The policy that climbed, at every strength."""
        query = learning_query(rows, fitted, seed, "q" in needs_of(self.objective))
        size = query.context.shape[1] * query.reference.numel()
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), threads_for(size):
            torch.manual_seed(seed)
            values = self._network(query) if self.hidden else self._linear(query)
        values.requires_grad_(False)
        f = values(query.context[:4096]).to(torch.float64)
        scale = float(deviation_scale(f, query.reference[:4096]))
        return [
            Candidate(label, Capped(Softmax(values, scale / label.sharpness), self.cap, fitted))
            for label in self.labels()
        ]

    def _linear(self, query: Query) -> ActionValues:
        """L-BFGS on all rows, in double precision, on standardized features."""
        standardizer = Standardizer.of(query.context)
        z = (query.context.to(torch.float64) - standardizer.mean) / standardizer.spread
        n_actions = query.reference.shape[1]
        weight = torch.zeros(z.shape[1], n_actions, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(n_actions, dtype=torch.float64, requires_grad=True)
        log_base, inside = _log_base(query.reference)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=self.iterations, tolerance_grad=1e-6, tolerance_change=1e-8,
            history_size=8, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def loss() -> Tensor:
            solver.zero_grad()
            target = self._target(z @ weight + bias, log_base, inside, query.reference)
            shrink = 0.5 * self.decay * (weight.square().sum() + bias.square().sum())
            out = shrink - self.objective(_with(query, target))
            out.backward()
            return out

        solver.step(loss)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            slope = weight / standardizer.spread[:, None]
            return LinearValues.of(slope, bias - standardizer.mean @ slope)

    def _network(self, query: Query) -> ActionValues:
        """Adam on minibatches, in single precision, with a cosine step size."""
        n, n_actions = query.reference.shape
        query = _single(query)
        net = MLPValues(query.context.shape[1], n_actions, self.hidden).standardize(query.context)
        log_base, inside = _log_base(query.reference)
        batch = min(self.batch, n)
        per_pass = -(-n // batch)
        steps = max(self.iterations * per_pass, 1)
        solver = torch.optim.AdamW(net.parameters(), lr=self.lr, weight_decay=self.decay * 100)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, steps)
        order = torch.cat([torch.randperm(n) for _ in range(self.iterations)])
        for at in order.split(batch)[:steps]:
            some = query.rows(at)
            target = self._target(net(some.context), log_base[at], inside[at], some.reference)
            loss = -self.objective(_with(some, target))
            solver.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            solver.step()
            schedule.step()
        return net

    def _target(
        self, values: Tensor, log_base: Tensor, inside: Tensor, reference: Tensor
    ) -> Float[Tensor, "N A"]:
        logits = (values + log_base).masked_fill(~inside, float("-inf"))
        return capped(torch.softmax(logits, -1), reference, self.cap)


def _log_base(reference: Tensor) -> tuple[Tensor, Tensor]:
    inside = reference > 0
    return torch.where(inside, reference, torch.ones_like(reference)).log(), inside


def _with(query: Query, target: Tensor) -> Query:
    return replace(query, target=target)


def _single(query: Query) -> Query:
    """The same query in single precision."""
    columns: dict[str, Any] = {k: getattr(query, k) for k in query.__dataclass_fields__}
    floats = {
        k: v.float() for k, v in columns.items() if isinstance(v, Tensor) and v.is_floating_point()
    }
    return replace(query, **floats)


@torch.no_grad()
def learning_query(
    rows: LearningRows, fitted: nn.Module | None, seed: int = 0, modeled: bool = True,
    most: int = _MOST_ROWS,
) -> Query:  # fmt: skip
    """The learning rows as scores see them; q, where asked for, by two-fold cross-fitting.

    A reward model that has seen a row explains its noise too, and a policy that is trained on what
    is left would believe it. With more than `most` rows, a random choice of them.
    """
    reference = reference_of(rows, fitted)
    query = Query(
        action=rows.action,
        reward=rows.reward,
        propensity=rows.propensity,
        target=reference,
        reference=reference,
        context=rows.context,
        low=rows.lo,
        high=rows.hi,
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(query.action), generator=generator)
    if len(order) > most:
        query = query.rows(order[:most])
        order = order[:most].argsort()
    if not modeled:
        return query
    q = torch.empty_like(query.reference)
    half = order < len(order) // 2
    for train, held in ((half, ~half), (~half, half)):
        model = DeviationModel.fit(
            query.context[train], query.action[train], query.reward[train], rows.n_actions
        )
        q[held] = model(query.context[held])
    return replace(query, q=q)
