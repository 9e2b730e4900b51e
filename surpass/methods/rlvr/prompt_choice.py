"""GRPO on prompts of a pool that are chosen by what came of them before."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, copy, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.divergence import k3
from surpass.objectives.normalizing import by_accuracy, with_accuracy
from surpass.objectives.prompt_choice import frontier, likely_mixed
from surpass.objectives.reduce import sequence_mean
from surpass.objectives.trust import clip
from surpass.parts import Number
from surpass.registry import system

__all__ = ["fg_expo", "vade"]


@system("vade")
def vade(
    own: float = 0.5, every: float = 0.99, anywhere: float = 0.1, thompson: bool = True,
    pool: int = 2000, eps: float = 0.2, group: int = 8, lr: Number = 1e-6, batch: int = 64,
    horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """Prompts by Thompson sampling on forgetful Beta beliefs, for groups of mixed outcomes; no
    further rollouts. `pool` prompts are drawn where a task makes them without end."""
    return PolicyGradient(
        group_standardized(), clip(eps, eps), reduce=sequence_mean(), minibatches=minibatches,
        source=rollouts(batch, horizon, group, pool=pool,
                        choose=likely_mixed(own, every, anywhere, thompson)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip


@system("fg-expo")
def fg_expo(
    beta: float = 0.02, keep: float = 0.9, width: float = 0.35, pool: int = 2000,
    eps: float = 0.2, group: int = 8, lr: Number = 1e-6, batch: int = 64, horizon: int = 256,
    minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """A penalty that tightens as the batch's accuracy rises, and prompts drawn by how near to one
    half their moving success rate is."""
    return PolicyGradient(
        with_accuracy(group_standardized()), clip(eps, eps) + beta * (by_accuracy() * k3()),
        reduce=sequence_mean(), minibatches=minibatches, nets={"reference": copy("policy")},
        source=rollouts(batch, horizon, group, pool=pool, choose=frontier(keep, width)),
        optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
