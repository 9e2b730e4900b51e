"""Evidence for robust planning."""

from __future__ import annotations

from typing import Any

import numpy as np

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.theory.robust import dr_rpo
from surpass.objectives.planning import divergence
from surpass.tasks.linear_mdp import LinearMDP, LinearPlay, fail_or_safe
from surpass.training.replan import replan

# At 0.05 even the exact optima with and without a ball differ by 0.072 of the range, less than the
# bar, so no learner could be told from the other; at 0.01 by 0.25. The bonus had the least regret
# of 0.1, 0.3, 0.5, 0.7 and 1 in other seeds; the value-based method is at its best with it too.
LAM, BONUS, EPISODES = 0.01, 0.7, 300


def _learned(mdp: LinearMDP, seed: int, **how: Any) -> list[np.ndarray]:
    form = dr_rpo(mdp.phi, **{"lam": LAM, "eta": 5.0, "bonus": BONUS, "episodes": EPISODES, **how})
    return replan(form, LinearPlay(mdp), seed=seed).plans


def _late(plans: list[np.ndarray], mdp: LinearMDP) -> float:
    """Mean value of the last fifth."""
    return float(np.mean([mdp.value(p) for p in plans[-len(plans) // 5 :]]))


@evidence(
    "dr-rpo",
    claim="trained in the nominal problem, it earns at least a tenth of the range more than the "
    "same method without a ball where the first factor fails, and loses at most a tenth where "
    "nothing fails; it stays within 5 % of the value-based robust method, and its regret falls",
    setting="a linear problem of 5 states, 16 actions, 3 steps, with a risky and a safe way; "
    "ball of radius 0.5 around the first factor at the first step; divergence weighed 0.01, bonus "
    "0.7; 300 episodes",
    baseline="the same method with radius 0",
    metric="return where the first factor always fails, over the range of returns",
    bar=at_least(0.1),
    seeds=40,
    minutes=2,
)
def dr_rpo_evidence(seed: int, zoo: Any) -> Result:
    mdp, radius = fail_or_safe(), np.zeros((3, 4))
    radius[0, 0] = 0.5
    hit = mdp.perturbed(0, 3, 1.0)
    span = mdp.value(mdp.solve()) - hit.value(mdp.solve())
    ours, plain = _learned(mdp, seed, radius=radius), _learned(mdp, seed, radius=0.0)
    greedy = _learned(mdp, seed, radius=radius, lam=0.0, eta=np.inf)
    tied = _learned(mdp, seed, radius=radius, lam=0.5)
    best = mdp.value(mdp.solve(radius, LAM), radius, LAM)
    lost = np.array([best - mdp.value(p, radius, LAM) for p in ours])
    third = EPISODES // 3

    def far(plans: list[np.ndarray]) -> float:
        return float(divergence(plans[-1][0], mdp.uniform())[:1].mean())

    return Result(
        _late(ours, hit) / span,
        _late(plain, hit) / span,
        {
            "return where nothing fails": (
                _late(ours, mdp), _late(plain, mdp), at_least(0.9, times=True),
            ),
            "return where the factor always fails, against the value-based robust method": (
                _late(ours, hit), _late(greedy, hit), at_least(0.95, times=True),
            ),
            "regret an episode to the exact robust optimum, last third against first": (
                float(lost[-third:].mean()), float(lost[:third].mean()), at_most(0.3, times=True),
            ),
            "divergence from the uniform policy, lam 0.5 against 0.01": (
                far(tied), far(ours), at_most(0.0),
            ),
        },
    )  # fmt: skip
