"""Policy gradients on masked diffusion over sequences, with any reward of what is written.

Hand in the trained model as `policy`, with its task; "from-log" first learns the model from a log.
"""

from __future__ import annotations

from typing import Any

from surpass.errors import InputError
from surpass.forms import Learner, PolicyGradient, Stage, Stages, adam, copy, log, rollouts, train
from surpass.objectives.advantage import group_standardized
from surpass.objectives.concrete_scores import (
    by_neighbors,
    by_probability,
    by_resampling,
    conditional_kl,
    score_entropy,
)
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import clip
from surpass.objectives.value import clone
from surpass.parts import Part
from surpass.policies.acting import sampled
from surpass.policies.masked_diffusion import masked_diffusion
from surpass.registry import system

__all__ = ["masked_cloning", "path_gradient", "sepo", "sepo_from_log"]

WEIGHTS: dict[str, Part[[Any], Any]] = {
    "neighbors": by_neighbors(), "snis": by_resampling(), "exact": by_probability(),
}  # fmt: skip


@system("sepo")
def sepo(
    eps: float = 0.2, beta: float = 0.0, lr: float = 1e-4, samples: int = 128, group: int = 8,
    epochs: int = 5, weights: str = "neighbors",
) -> PolicyGradient:  # fmt: skip
    """E[min(q A, clip(q) A) sum_y w_y log s(x)_y], minimized, over the neighbors y of finished
    sequences; `weights` are "neighbors", "snis", or "exact" for models that know pi."""
    if weights not in WEIGHTS:
        raise InputError(f"weights={weights!r}; there are {', '.join(WEIGHTS)}")
    trust = score_entropy(eps, WEIGHTS[weights])
    return PolicyGradient(
        group_standardized(), trust + beta * conditional_kl() if beta else trust,
        reduce=sum_over(1.0), nets={"reference": copy("policy")} if beta else {},
        source=rollouts(samples, 1, group, paths=True),
        optimizer=adam(lr, max_norm=1.0), epochs=epochs,
    )  # fmt: skip


@system("sepo:path")
def path_gradient(
    eps: float = 0.2, lr: float = 1e-4, samples: int = 128, group: int = 8, epochs: int = 5
) -> PolicyGradient:
    """What it is compared with: the clipped surrogate on the steps that reveal letters; the model
    is `masked_diffusion(path=True)`."""
    return PolicyGradient(
        group_standardized(), clip(eps, eps), reduce=sum_over(1.0),
        source=rollouts(samples, 1, group, paths=True),
        optimizer=adam(lr, max_norm=1.0), epochs=epochs,
    )  # fmt: skip


def masked_cloning(
    steps: int | None = None, path: bool = False, leave_out: bool = False, lr: float = 1e-3,
    batch: int = 256, width: int = 128, blocks: int = 2,
) -> Learner:  # fmt: skip
    """The masked diffusion of a log's sequences."""
    net = masked_diffusion(width, blocks, steps, path, leave_out)
    return Learner(
        nets={"policy": net}, update=(train("policy", clone("policy"), adam(lr)),),
        act=sampled("policy"), source=log(batch), discrete=True,
    )  # fmt: skip


@system("sepo:from-log")
def sepo_from_log(
    eps: float = 0.2, lr: float = 1e-4, updates: int = 3_000, written: int = 20_000
) -> Stages:
    """The model of a log, then its reward by SEPO."""
    return Stages((Stage(masked_cloning(), updates), Stage(sepo(eps, lr=lr), written)))
