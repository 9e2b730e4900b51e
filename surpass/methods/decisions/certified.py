"""Policies that minimize a certificate of their own risk: PAC-Bayes on logged decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.critics.deviations import Standardizer
from surpass.methods.decisions.candidate import Candidate, Label, Learner, reference_of
from surpass.methods.decisions.threads import threads_for
from surpass.objectives.pac_bayes import bernstein, gaussian_kl, smoothed
from surpass.objectives.views import Query
from surpass.parts import Part
from surpass.policies.mixed_logit import MixedLogit, mixed
from surpass.policies.tilted import CAP, Capped, fit_multinomial
from surpass.registry import system

__all__ = ["Certificate", "Certified", "exp_smoothing", "pac_bayes"]


@dataclass(frozen=True)
class Certificate:
    """With probability 1 - delta the policy's value is at least `value` (in rewards); `logged` is
    the mean logged reward. `deploy` is whether the former exceeds the latter."""

    value: float
    logged: float

    @property
    def deploy(self) -> bool:
        return self.value > self.logged


@dataclass(frozen=True)
class Certified:
    """A learner: minimize `bound` over mixed-logit policies, by Adam.

    Attributes:
        name: in labels. bound: a part of `objectives.pac_bayes` with `rows`.
        epochs, batch, lr: of Adam. draws: of the noise in training.
        prior_share: of the rows that only the prior is fitted on (its actions), since a prior must
            not have seen what the bound is computed on.
        cap: no action gets more than cap + 1 times its reference probability.
    """

    name: str
    bound: Part[[Query], Tensor]
    epochs: int = 12
    batch: int = 512
    lr: float = 0.03
    draws: int = 8
    prior_share: float = 0.2
    cap: float = CAP

    def learn(
        self, query: Query, prior: Float[Tensor, "k A"], location: Tensor, scale: Tensor, seed: int
    ) -> tuple[MixedLogit, Certificate]:
        """Minimize the bound from the prior's mean; the certificate is on all rows of the query."""
        rows = len(query.reward)
        policy = MixedLogit(prior.shape[0] - 1, prior.shape[1])
        policy.location, policy.scale = location, scale
        phi = policy.features(query.context)
        generator = torch.Generator().manual_seed(seed)
        with torch.enable_grad(), threads_for(phi.numel() * prior.shape[1]):
            mean = prior.clone().requires_grad_()
            log_spread = torch.zeros((), dtype=torch.float64, requires_grad=True)
            solver = torch.optim.Adam([mean, log_spread], lr=self.lr)
            steps = self.epochs * -(-rows // self.batch)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, steps)
            for _ in range(self.epochs):
                for at in torch.randperm(rows, generator=generator).split(self.batch):
                    noise = torch.randn(
                        self.draws, prior.shape[1], generator=generator, dtype=torch.float64
                    )
                    some = query.rows(at)
                    pi = on_offer(mixed(phi[at], mean, log_spread, noise), some.propensities)
                    loss = self.of(some, pi, gaussian_kl(mean, prior, log_spread), rows)
                    solver.zero_grad()
                    loss.backward()
                    solver.step()
                    schedule.step()
        policy.mean, policy.log_spread = mean.detach(), log_spread.detach()
        return policy, self.certify(policy, prior, query)

    def certify(self, policy: MixedLogit, prior: Tensor, query: Query) -> Certificate:
        """What the bound says of a policy."""
        kl = gaussian_kl(policy.mean, prior, policy.log_spread)
        pi = on_offer(policy(query.context), query.propensities)
        bound = float(self.of(query, pi, kl, len(query.reward)))
        width = query.high - query.low
        return Certificate(query.low - width * bound, float(query.reward.mean()))

    def of(self, query: Query, target: Tensor, kl: Tensor, rows: int) -> Tensor:
        """The bound of some rows that stand for `rows`."""
        asked = Query(
            query.action, query.reward, query.propensity, target, propensities=query.propensities,
            low=query.low, high=query.high, extras={"kl": kl},
        )  # fmt: skip
        definition, values = self.bound.definition, dict(self.bound.values)
        if "rows" in definition.defaults:
            values["rows"] = rows
        return definition.function(asked, **{**definition.defaults, **values})

    def fit(self, rows: Any, fitted: nn.Module | None, seed: int) -> list[Candidate]:
        """One candidate; the bound is minimized on the rows that the prior did not see."""
        mu = reference_of(rows, fitted)
        n = len(rows.action)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        first, rest = order[: int(self.prior_share * n)], order[int(self.prior_share * n) :]
        standard = Standardizer.of(rows.context[first])
        model = fit_multinomial(rows.context[first], rows.action[first], rows.n_actions)
        query = Query(
            rows.action[rest], rows.reward[rest], rows.propensity[rest], mu[rest],
            propensities=mu[rest].clamp_min(1e-12), context=rows.context[rest],
            low=rows.lo, high=rows.hi,
        )  # fmt: skip
        prior = model.weight.T.contiguous()
        policy, _ = self.learn(query, prior, standard.mean, standard.spread, seed)
        label = Label(self.name, self.name, {"bound": repr(self.bound)}, self.name, 1.0)
        return [Candidate(label, Capped(policy, self.cap, fitted))]


def on_offer(pi: Float[Tensor, "N A"], mu: Tensor | None) -> Float[Tensor, "N A"]:
    """pi without the actions that the log never shows (mu at its floor), scaled to sum to 1."""
    if mu is None:
        return pi
    kept = pi * (mu > 1e-9)
    return kept / kept.sum(-1, keepdim=True)


@system("exp-smoothing")
def exp_smoothing(alpha: float = 0.9, delta: float = 0.05) -> Learner:
    """Climb a two-sided certificate of the risk whose weights are pi / mu^alpha."""
    return Certified("exp-smoothing", smoothed(alpha, delta))


@system("pac-bayes-opl")
def pac_bayes(tau: float = 0.05, control: float = -0.5, delta: float = 0.05) -> Learner:
    """Climb a conditional Bernstein certificate of the clipped risk with a control variate."""
    return Certified("pac-bayes-opl", bernstein(tau, control, delta))
