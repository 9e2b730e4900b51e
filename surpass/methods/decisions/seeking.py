"""Policies that follow a reward model: more of what it says is better, up to all of it.

A model q(x, a) is fitted to the learning rows; the candidates are pi ∝ rho exp(c q / sd(q)),
capped, from a cautious tilt (c = 1) to greedy. sd(q) is the spread of q over actions under the
reference, so that c means the same for every model and reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.critics.deviations import DeviationModel, Standardizer, deviation_scale
from surpass.critics.rewards import Boosting
from surpass.errors import InputError
from surpass.methods.decisions.candidate import Candidate, Label, LearningRows, reference_of
from surpass.methods.decisions.threads import threads_for
from surpass.policies.action_values import ActionValues, LinearValues
from surpass.policies.categorical import Softmax
from surpass.policies.tilted import CAP, Capped
from surpass.policies.trees import TreeValues

__all__ = ["BoostedTrees", "LogisticRewards", "RewardSeeking", "RidgeRewards", "ValueModel"]


class ValueModel(Protocol):
    """Fits a reward model that is a module: its numbers in tensors, so that it can be handed
    over."""

    def fit(self, rows: LearningRows) -> ActionValues:
        """q from learning rows; `forward(context)` is [N, A]."""
        ...


@dataclass(frozen=True)
class RidgeRewards:
    """A shared linear model plus a linear deviation per action, by least squares with penalties on
    the deviations' (intercept, slopes): `surpass.critics.deviations`."""

    penalty: tuple[float, float] = (300.0, 300.0)

    def fit(self, rows: LearningRows) -> ActionValues:
        """In closed form."""
        model = DeviationModel.fit(
            rows.context, rows.action, rows.reward, rows.n_actions, self.penalty
        )
        both = model.theta + model.shared
        slope = both[:, 1:].T / model.spread[:, None]
        return LinearValues.of(slope, both[:, 0] - model.mean @ slope)


@dataclass(frozen=True)
class LogisticRewards:
    """P(reward = hi | x, a) = sigmoid(v(x) + d_a(x)), both linear, by penalized maximum likelihood.

    For rewards of two values; other rewards within [lo, hi] are taken as shares of hi, for which
    the same likelihood is Papke and Wooldridge's (Econometric methods for fractional response
    variables, 1996). `intercept` and `slopes` are penalties on d_a, `shared` on v's slopes.
    """

    intercept: float = 3.0
    slopes: float = 30.0
    shared: float = 3.0
    iterations: int = 100

    def fit(self, rows: LearningRows) -> ActionValues:
        """By L-BFGS, in double precision, from the overall rate."""
        standardizer = Standardizer.of(rows.context)
        x = standardizer.features(rows.context)
        share = ((rows.reward - rows.lo) / (rows.hi - rows.lo)).clamp(0.0, 1.0)
        rate = share.mean().clamp(1e-6, 1 - 1e-6)
        with torch.enable_grad():
            common = torch.zeros(x.shape[1], dtype=torch.float64)
            common[0] = torch.logit(rate)
            common.requires_grad_()
            theta = torch.zeros(x.shape[1], rows.n_actions, dtype=torch.float64, requires_grad=True)
            solver = torch.optim.LBFGS(
                [common, theta], max_iter=self.iterations, tolerance_grad=1e-6,
                history_size=8, line_search_fn="strong_wolfe",
            )  # fmt: skip
            heavy = torch.full((x.shape[1], 1), self.slopes, dtype=torch.float64)
            heavy[0] = self.intercept
            logged = rows.action[:, None]

            def loss() -> Tensor:
                solver.zero_grad()
                logit = x @ common + (x @ theta).gather(1, logged)[:, 0]
                out = nn.functional.binary_cross_entropy_with_logits(logit, share, reduction="sum")
                out = out + 0.5 * (heavy * theta.square()).sum()
                out = (out + 0.5 * self.shared * common[1:].square().sum()) / len(x)
                out.backward()
                return out

            solver.step(loss)  # pyright: ignore[reportArgumentType]
        both = (theta + common[:, None]).detach()
        slope = both[1:] / standardizer.spread[:, None]
        bias = both[0] - standardizer.mean @ slope
        return LinearValues.of(slope, bias, "sigmoid", rows.lo, rows.hi)


@dataclass(frozen=True)
class BoostedTrees:
    """Gradient-boosted trees on [x, action] (`surpass.critics.rewards.Boosting`), held as tensors.

    Few, small trees with large leaves: differences between actions are small beside the noise of a
    reward. A leaf holds at least a sixtieth of the rows (between 20 and 150), unless
    `smallest_leaf` says otherwise.
    """

    trees: int = 40
    leaves: int = 8
    rate: float = 0.1
    smallest_leaf: int | None = None

    def fit(self, rows: LearningRows) -> ActionValues:
        """By scikit-learn; the result equals its predictions."""
        least = self.smallest_leaf or min(max(len(rows.action) // 60, 20), 150)
        model = Boosting(self.trees, self.leaves, self.rate, least)
        fitted: Any = model.fit(rows.context, rows.action, rows.reward, n_actions=rows.n_actions)
        n_inputs = rows.context.shape[1]
        if hasattr(fitted, "value"):  # every reward is the same
            bias = torch.full((rows.n_actions,), float(fitted.value), dtype=torch.float64)
            return LinearValues.of(bias.new_zeros(n_inputs, rows.n_actions), bias)
        link: dict[str, Any] = {}
        if fitted.levels is not None:
            link = {"link": "sigmoid", "low": fitted.levels[0], "high": fitted.levels[1]}
        mean, spread = fitted.standard.mean, fitted.standard.spread
        return TreeValues.of_joint(fitted.model, n_inputs, rows.n_actions, mean, spread, **link)


@dataclass(frozen=True)
class RewardSeeking:
    """A learner: tilts of the reference by a reward model, up to greedy.

    Attributes:
        name: of the learner, in labels.
        model: what is fitted.
        strengths: c; 1000 is greedy.
        cap: no action gets more than cap + 1 times its reference probability.
        most: rows that are learned from at most (a random choice beyond).
    """

    name: str
    model: ValueModel
    strengths: tuple[float, ...] = (1.0, 4.0, 1000.0)
    cap: float = CAP
    most: int = 500_000

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise InputError(f"strengths of {self.name} are positive, not {self.strengths}")

    def labels(self) -> tuple[Label, ...]:
        """One for each strength."""
        return tuple(
            Label(f"{self.name}(c={c:g})", self.name, {"strength": c}, self.name, c)
            for c in self.strengths
        )

    def fit(self, rows: Any, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        """The model once, and a policy for every strength; the model is also the critic."""
        if len(rows.action) > self.most:
            generator = torch.Generator().manual_seed(seed)
            rows = rows.take(torch.randperm(len(rows.action), generator=generator)[: self.most])
        with threads_for(rows.context.numel() * rows.n_actions):
            values = self.model.fit(rows)
        values.requires_grad_(False)
        scale = _scale(values, rows, fitted)
        out = []
        for label in self.labels():
            policy = Softmax(values, scale / label.sharpness)
            out.append(Candidate(label, Capped(policy, self.cap, fitted), values))
        return out


@torch.no_grad()
def _scale(values: ActionValues, rows: Any, fitted: nn.Module | None) -> float:
    """The spread of the values over actions under the reference, on a few thousand rows."""
    some = rows.take(slice(None, None, max(1, len(rows.action) // 4096)))
    q: Float[Tensor, "N A"] = values(some.context).to(torch.float64)
    return float(deviation_scale(q, reference_of(some, fitted)))
