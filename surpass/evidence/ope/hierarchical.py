"""Evidence for hierarchical off-policy learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.critics.hierarchical import HierarchicalGaussian
from surpass.evidence.declaration import Result, at_least, at_most, evidence

TASKS, ACTIONS, SIZE, ALPHA, WORLDS = 20, 10, 4, 0.1, 20


def regrets(rows: int, generator: torch.Generator) -> dict[str, float]:
    """Mean loss against the best action of the three learners in one drawn world."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mu = normal(SIZE)
    theta = mu + 0.5 * normal(TASKS, SIZE)
    task = torch.arange(TASKS).repeat_interleave(rows)
    phi = torch.rand(len(task), SIZE, generator=generator, dtype=torch.float64) - 0.5
    reward = (phi * theta[task]).sum(1) + 0.5 * normal(len(task))
    fresh = torch.rand(TASKS * 50, ACTIONS, SIZE, generator=generator, dtype=torch.float64) - 0.5
    where = torch.arange(TASKS).repeat_interleave(50)
    worth = torch.einsum("nad,nd->na", fresh, theta[where])
    together, alone = HierarchicalGaussian(), HierarchicalGaussian(pooled=False)
    found = {
        "hier": together.fit(phi, reward, task, TASKS),
        "flat": alone.fit(phi, reward, task, TASKS),
        "oracle": together.fit(phi, reward, task, TASKS, known=mu),
    }
    out = {}
    for name, posterior in found.items():
        taken = posterior.lower(fresh, where, ALPHA).argmax(1)
        lost = worth.max(1).values - worth.gather(1, taken[:, None])[:, 0]
        out[name] = float(lost.mean())
    return out


@evidence(
    "hier-opo",
    claim="with 20 rows a task, learning tasks together loses at most 0.8 times as much as "
    "learning each alone; with 500 rows the two agree, and knowing the shared mean adds little",
    setting="20 tasks of 4 parameters, variance 0.25 around a shared mean of variance 1, noise "
    "0.5, 10 actions with random features, 20 worlds a seed",
    baseline="FlatOPO: the same model without sharing, the same alpha",
    metric="mean loss against the best action, 20 rows a task",
    bar=at_most(0.8, times=True),
    minutes=1,
)
def hier_opo_evidence(seed: int, zoo: Any) -> Result:
    generator = torch.Generator().manual_seed(seed)
    means: dict[int, dict[str, float]] = {}
    for rows in (10, 20, 500):
        found = [regrets(rows, generator) for _ in range(WORLDS)]
        means[rows] = {k: sum(f[k] for f in found) / WORLDS for k in found[0]}
    few, many = means[20], means[500]
    return Result(
        few["hier"],
        few["flat"],
        {
            "10 rows a task": (means[10]["hier"], means[10]["flat"], at_most(0.8, times=True)),
            "500 rows a task": (many["hier"], many["flat"], at_least(0.95, times=True)),
            "against knowing the shared parameters": (
                few["oracle"], few["hier"], at_most(1.02, times=True),
            ),
        },
    )  # fmt: skip
