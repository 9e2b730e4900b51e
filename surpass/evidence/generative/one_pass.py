"""Evidence of improving diffusion policies by one pass, beside the gradient through the chain."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.evidence.generative.ring import RING
from surpass.forms import Learner, adam, train
from surpass.methods.generative.one_pass import edp, edp_iql
from surpass.objectives.value import ascend, clone
from surpass.parts import set_at
from surpass.training.run import train as fit

UPDATES = 500
HYPER: dict[str, Any] = {
    "n": 1, "levels": 10, "fast": 0, "lr": 2e-3, "tau": 0.02, "width": 48, "hidden": (48, 48),
    "batch": 128,
}  # fmt: skip


def small(form: Learner) -> Learner:
    """Two residual blocks of twice the width, and the cosine schedule."""
    for name, value in (("blocks", 2), ("expansion", 2), ("schedule", "cosine")):
        form = set_at(form, f"nets.pi.{name}", value)
    return form


def through_the_chain(alpha: float) -> Learner:
    """EDP's learner with the gradient through all levels: Diffusion-QL."""
    form, loss = small(edp(**HYPER)), 0.5 * clone() + alpha * ascend()
    return replace(form, update=(form.update[0], train("pi", loss, adam(HYPER["lr"]))))


def measured(form: Learner, seed: int) -> tuple[float, float]:
    """The expected reward of the policy's own samples, and the share of them near a mode."""
    trained = fit(form, RING.log(10_000, seed), steps=UPDATES, seed=seed, compile=False)
    contexts = RING.contexts(1_000)
    action = trained.policy.act(contexts).action
    return float(RING.worth(contexts, action).mean()), float(RING.supported(action).mean())


def per_update(form: Learner, few: int, many: int, seed: int) -> float:
    """Seconds of the processor for one update of the policy alone, at 100 levels: the difference of
    two runs, over the difference of their updates."""
    form = set_at(form, "nets.pi.steps", 100)
    form = replace(form, update=form.update[-1:])
    spent = []
    for updates in (few, many):
        began = time.process_time()
        fit(form, RING.log(1_000, seed), steps=updates, seed=seed, compile=False)
        spent.append(time.process_time() - began)
    return (spent[1] - spent[0]) / (many - few)


@evidence(
    "edp",
    claim="an update of a diffusion policy by one pass of its net takes less than a tenth of the "
    "time of one through its 100 levels, and 500 of them improve it well beyond its log",
    setting="ring bandit, 6 modes of deviation 0.1, 10,000 rows, whose behavior earns 0; width 48; "
    "time at 100 levels, reward of single samples after 500 updates with 10 levels and alpha 3",
    baseline="the same update with the gradient through all levels (Diffusion-QL)",
    metric="seconds of the processor per update of the policy",
    bar=at_most(0.1, times=True), seeds=5, minutes=2,
)  # fmt: skip
def edp_evidence(seed: int, zoo: Any) -> Result:
    """Also: regression with IQL's critic on the estimate, and how near to modes samples lie."""
    quick = per_update(small(edp(**HYPER)), 20, 120, seed)
    slow = per_update(through_the_chain(1.0), 2, 8, seed)
    climbed = measured(small(edp(3.0, **HYPER)), seed)
    regressed = measured(small(edp_iql(0.7, 10.0, weight=3.0, **HYPER)), seed)
    return Result(
        quick, slow,
        {
            "reward": (climbed[0], regressed[0], at_least(0.5, alone=True)),
            "reward of regression": (regressed[0], climbed[0], at_least(0.3, alone=True)),
            "support beside regression": (climbed[1], regressed[1]),
        },
    )  # fmt: skip
