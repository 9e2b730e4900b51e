"""Evidence on costs of adjustment: what each form does, and what being wrong about them costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.theory.adjustment import calibrated, planned, worth
from surpass.objectives.switching import Form
from surpass.tasks.fishery import Fishery, Harvested

FORMS: tuple[Form, ...] = ("linear", "quadratic", "fixed")
FALLS = (0.1, 0.15, 0.2, 0.25)


@evidence(
    "policy-adjustment-costs",
    claim="at every size and form, ignoring costs of adjustment that exist loses more than "
    "assuming ones that do not; costs that grow with the change dampen quotas, fixed ones do not",
    baseline="the plan that assumes the cost, where there is none",
    metric="profit as a share of the cost-free optimum, the closest of 12 pairs",
    bar=at_most(-0.05), seeds=3, minutes=1.0,
    setting="50 stocks and quotas, 20 steps; every form scaled so that the optimum falls by 10 to "
    "25 percent; 300 replicates at 25 percent.",
)  # fmt: skip
def adjustment_evidence(seed: int, zoo: Any) -> Result:
    """Also: variance and autocorrelation of quotas; the seed is that of the replicates."""
    model, rng = Fishery(), np.random.default_rng(seed)
    at = model.nearest(model.capacity)
    free = planned("none", 0.0)(model)
    best = free.value[at].max()

    def drawn(plan: Any) -> Harvested:
        return model.simulate(plan.policy, at, int(plan.value[at].argmax()), 300, rng)

    pairs, seen = [], {"none": drawn(free)}
    rising: list[float] = []
    for form in FORMS:
        for fall in FALLS:
            c = calibrated(model, form, fall)
            plan = planned(form, c)(model)
            ignoring = worth(model, free.policy, form, c)[at].max() / best
            pairs.append((float(ignoring), float(worth(model, plan.policy)[at].max() / best)))
            seen[form] = drawn(plan)
            if form != "fixed":
                rising.append(seen[form].variance)
    closest = max(pairs, key=lambda p: p[0] - p[1])
    steps = np.diff(np.array(rising).reshape(2, -1)).max()
    others = [seen[f].autocorrelation for f in ("none", "linear", "fixed")]
    variance = {f: s.variance for f, s in seen.items()}
    return Result(
        *closest,
        also={"variance of quotas, linear": (
                  variance["linear"], variance["none"], at_most(1.0, times=True)),
              "variance of quotas, quadratic": (
                  variance["quadratic"], variance["none"], at_most(1.0, times=True)),
              "variance of quotas, fixed": (
                  variance["fixed"], variance["none"], at_least(1.0, times=True)),
              "largest rise of the variance with the cost": (
                  float(steps), 0.0, at_most(0.0, alone=True)),
              "autocorrelation, quadratic against the largest of the others": (
                  seen["quadratic"].autocorrelation, max(others), at_least(0.0))},
    )  # fmt: skip
