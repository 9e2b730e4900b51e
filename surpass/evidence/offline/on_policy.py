"""Evidence for Uni-O4: the clipped objective on a log, gated by a learned model."""

from __future__ import annotations

from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.evidence.offline.point import score
from surpass.methods.offline.on_policy import uni_o4
from surpass.policies.acting import InEnvironment, mean
from surpass.training.run import train

ROWS, WORST = 10_000, 16.2736


@evidence(
    "uni-o4",
    claim="two clones of a medium log, improved on it by PPO's objective with the model's gate, "
    "give a policy 5 points better than the clones",
    setting="pendulum, the zoo's medium log, 10,000 rows, rewards scaled to [0, 1], 64x64 nets, "
    "2 clones, 3 models of horizon 30, 300 steps of improvement each; the online phase is left out",
    baseline="the clones themselves, their mean score",
    metric="normalized return",
    bar=at_least(5.0),
    seeds=3,
    minutes=2,
)
def uni_o4_evidence(seed: int, zoo: Any) -> Result:
    """Also: the last policy, which no gate chose."""
    log = zoo("pendulum-medium")[:ROWS]
    log.reward = 1.0 + log.reward / WORST
    form = uni_o4(
        members=2, horizon=30, every=50, lr=1e-3, batch=256, models=3, values=1_500, model=1_500,
        cloning=1_500, offline=300, online=0, hidden=(64, 64),
    )  # fmt: skip
    trained = train(form, log, seed=seed, compile=False, log_every=10_000)

    def worth(name: str) -> float:
        return score(InEnvironment(mean(name)(trained.nets, {}), trained.spaces), "pendulum", 64)

    clones = 0.5 * (worth("pi0") + worth("pi1"))
    also = {"normalized return of the last policy": (worth("policy"), clones)}
    return Result(worth("chosen"), clones, also)
