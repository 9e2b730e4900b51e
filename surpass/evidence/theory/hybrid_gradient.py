"""Evidence for natural gradients with a log beside: locks that own episodes alone do not open."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.theory.hybrid_gradient import hnpg
from surpass.tasks.hybrid_play import HybridPlay
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.tabular_play import count
from surpass.tasks.worlds import combination_lock
from surpass.training.replan import replan

BATCHES, STEPS, ACTIONS, LOGGED, FEATURES = 100, 10, 10, 1000, 15
ETA = 1.0
WEIGHTS = {"both": (1.0, 1.0), "own": (0.0, 1.0), "log": (1.0, 0.0)}


def ends(mdp: TabularMDP, log: Counts, seed: int, arm: str, phi: Any = None) -> tuple[float, int]:
    """The worth of the last policy, and the batches until one earned half."""
    lam, own = WEIGHTS[arm]
    form = hnpg(ETA, lam, own, BATCHES, phi)
    run = replan(form, HybridPlay(mdp, log), seed=seed)
    half = [i for i, earned in enumerate(run.earned) if earned >= 0.5]
    last = mdp.evaluate(torch.from_numpy(run.plans[-1].pi)).value
    return float(last), half[0] + 1 if half else BATCHES


@evidence(
    "hnpg",
    claim="with a log of nearly optimal episodes the hybrid critic opens a lock that own episodes "
    "alone do not open",
    baseline="the same natural gradient without the log; a rate of 1 for every arm, tuned for none",
    metric="worth of the last policy, of 1",
    bar=at_least(0.5), seeds=5, minutes=1.0,
    setting="a lock of 10 steps and 10 actions, 100 batches of 100 episodes, a log of 1,000 that "
    "errs once in ten; tables, and 15 random features of 30 pairs.",
)  # fmt: skip
def hybrid_gradient_evidence(seed: int, zoo: Any) -> Result:
    """Also: against values from the log alone where features cannot hold them; with a log of random
    actions, against none; and the batches until half is earned."""
    mdp, _ = combination_lock(STEPS, ACTIONS, generator=torch.Generator().manual_seed(seed))
    rng, even = np.random.default_rng(seed), mdp.uniform().numpy()
    good = count(mdp, 0.9 * mdp.solve().pi.numpy() + 0.1 * even, LOGGED, rng)
    useless = count(mdp, even, LOGGED, rng)
    phi = rng.normal(size=(3, ACTIONS, FEATURES))
    ours, half = ends(mdp, good, seed, "both")
    alone, never = ends(mdp, good, seed, "own")
    held, boot = (ends(mdp, good, seed, arm, phi)[0] for arm in ("both", "log"))
    return Result(
        ours, alone,
        also={"worth with features, against the log alone": (held, boot, at_least(0.2)),
              "worth with a random log, against none": (
                  ends(mdp, useless, seed, "both")[0], alone, at_least(-0.05)),
              "batches until half is earned": (float(half), float(never))},
    )  # fmt: skip
