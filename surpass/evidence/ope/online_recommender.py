"""Evidence for a recommender that keeps learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.ope.recommenders import grubhub_online
from surpass.tasks.arms import Scene
from surpass.tasks.drifting_tastes import DriftingTastes
from surpass.training.explore import Explored, explore

USERS, ITEMS, WINDOWS, SIZE, BEFORE = 1000, 40, 30, 1000, 20
LATE = slice(10, None)


class Watched(DriftingTastes):
    """The same world, which remembers its scenes."""

    def __init__(self, seed: int) -> None:
        super().__init__(USERS, ITEMS, seed=seed)
        self.scenes: list[Scene] = []

    def scene(self, n: int, rng: np.random.Generator) -> Scene:
        self.scenes.append(super().scene(n, rng))
        return self.scenes[-1]


class Begun:
    """A model whose learning can be looked at afterwards."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def begin(self, rows: int, features: int, actions: int, seed: int) -> Any:
        self.learning = self.model.begin(rows, features, actions, seed)
        return self.learning


def served(seed: int, **how: Any) -> tuple[Explored, Any, Watched]:
    """A recommender that begins with a uniformly random log and is then served for all windows."""
    world, rng = Watched(seed), np.random.default_rng(seed)
    past: list[tuple[torch.Tensor, ...]] = []
    for _ in range(BEFORE):
        scene = world.still(SIZE, rng)
        action = torch.from_numpy(rng.integers(ITEMS, size=SIZE))
        past.append((scene.context, action, world.paid(scene, action, rng)))
    log = tuple(torch.cat(c) for c in zip(*past, strict=True))
    form = grubhub_online(USERS, 2 * ITEMS, past=log, **how)  # type: ignore[arg-type]
    begun = Begun(form.model)
    found = explore(type(form)(form.choose, begun), world, WINDOWS, SIZE, seed=seed)
    return found, begun.learning, world


def gate_covers(learning: Any, world: Watched) -> float:
    """How often the gate's 95 % interval of a candidate's value covers the truth, in percent."""
    hits = []
    for window, reading in enumerate(learning.gates):
        mean = world.scenes[window].mean[reading.rows]
        true = float((reading.candidate * mean).sum(1).mean())
        hits.append(abs(reading.value - true) <= 1.96 * reading.error)
    return 100 * float(np.mean(hits))


@evidence(
    "grubhub-online",
    claim="a recommender that keeps weights and optimizer and learns from the newest window alone "
    "clicks within 1 % of one trained anew on the past, 10 % above the static one, with "
    "a fifteenth of the samples; its gate's intervals cover",
    setting="1,000 users, 40 items, tastes that turn and items that are replaced, 30 windows of "
    "1,000 events logged by what is served, after 20 uniformly random ones",
    baseline="trained anew every window on the last 20 or 10 windows (the better in hindsight), "
    "four passes, always served",
    metric="mean click rate, windows 10 to 30",
    bar=at_least(0.99, times=True),
    minutes=3,
)
def grubhub_evidence(seed: int, zoo: Any) -> Result:
    online, learner, world = served(seed)
    rivals = [served(seed, memory=m, passes=4, batch=400, margin=1.0)[:2] for m in (BEFORE, 10)]
    anew, again = max(rivals, key=lambda run: float(np.mean(run[0].earned[LATE])))
    static, still, _ = served(seed, memory=0)
    forgetful, _, _ = served(seed, keep_moments=False)
    random_rows, _, _ = served(seed, start_at_mean=False)
    rate = {
        name: float(np.mean(run.earned[LATE]))
        for name, run in (
            ("online", online), ("anew", anew), ("static", static), ("forgetful", forgetful),
            ("random rows", random_rows),
        )
    }  # fmt: skip

    def loss(model: Any) -> float:
        return float(np.mean(model.losses[LATE]))

    return Result(
        rate["online"],
        rate["anew"],
        {
            "click rate against the static recommender": (
                rate["online"], rate["static"], at_least(1.1, times=True)),
            "samples processed": (
                learner.processed, again.processed, at_most(1 / 15, times=True)),
            "percent of windows whose gate covers the truth": (
                gate_covers(learner, world), 90.0, at_least(0.0)),
            "log-loss of what is served, before learning": (loss(learner), loss(again)),
            "log-loss of the static recommender": (loss(still), loss(again)),
            "click rate with and without the optimizer's state": (
                rate["online"], rate["forgetful"]),
            "click rate with new items at the mean and at random": (
                rate["online"], rate["random rows"]),
        },
    )  # fmt: skip
