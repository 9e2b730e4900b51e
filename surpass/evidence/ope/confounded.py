"""Evidence for evaluation through an instrument."""

from __future__ import annotations

from typing import Any

import torch

from surpass.evaluation.trajectories import fitted, trajectory_query
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.ope.instruments import iv_ope
from surpass.objectives.instruments import instrumental_direct, instrumental_ratio
from surpass.tasks.confounded import ConfoundedChain

LOGS, EPISODES, STEPS = 20, 200, 50
PI = torch.tensor([[0.1, 0.9], [0.1, 0.9]], dtype=torch.float64)


def _errors(world: ConfoundedChain, seed: int) -> dict[str, torch.Tensor]:
    """Relative errors of six estimates on each log."""
    generator = torch.Generator().manual_seed(seed)
    truth = float(world.exact().evaluate(PI).value)
    out: dict[str, list[float]] = {}
    for _ in range(LOGS):
        log = world.episodes(EPISODES, STEPS, generator)
        query = trajectory_query(lambda obs: obs @ PI, log, world.gamma)
        for name, form in (("iv", iv_ope()), ("naive", iv_ope(confounded=False))):
            asked = fitted(query, form)
            for kind, score in (
                ("dr", form.score), ("dm", instrumental_direct()), ("mis", instrumental_ratio()),
            ):  # fmt: skip
                error = float(score(asked).mean()) / truth - 1
                out.setdefault(f"{name} {kind}", []).append(error)
    return {name: torch.tensor(values) for name, values in out.items()}


@evidence(
    "iv-ope",
    claim="with a hidden cause of action and outcome, the estimate through the instrument is "
    "within 2 % of the truth on average, and estimates that assume no hidden cause are five times "
    "further off",
    setting="two states, additive hidden effects, 200 episodes of 50 steps, 20 logs a seed, truth "
    "by a linear solve",
    baseline="the same doubly robust code with the action taken as unconfounded",
    metric="|mean relative error|",
    bar=at_most(0.2, times=True),
)
def iv_ope_evidence(seed: int, zoo: Any) -> Result:
    found = _errors(ConfoundedChain(), seed)
    off = {name: abs(float(e.mean())) for name, e in found.items()}
    weak = _errors(ConfoundedChain(strength=0.1), seed)
    bent = _errors(ConfoundedChain(logistic=True), seed)
    return Result(
        off["iv dr"],
        off["naive dr"],
        {
            "|mean relative error| itself": (
                off["iv dr"], off["naive dr"], at_most(0.02, alone=True),
            ),
            "against the direct method without instrument": (
                off["iv dr"], off["naive dm"], at_most(0.2, times=True),
            ),
            "against marginal importance sampling without instrument": (
                off["iv dr"], off["naive mis"], at_most(0.2, times=True),
            ),
            "spread with a weak instrument against a strong one": (
                float(weak["iv dr"].std()), float(found["iv dr"].std()), at_least(1.0, times=True),
            ),
            "|mean relative error|, logistic rewards": (
                abs(float(bent["iv dr"].mean())), abs(float(bent["naive dr"].mean())),
            ),
        },
    )  # fmt: skip
