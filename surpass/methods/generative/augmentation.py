"""Policy-guided diffusion: any learner on trajectories that a model makes as its policy would
act."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.critics.trajectories import trajectory_net
from surpass.forms import Learner, Repeat, Stage, Stages, Transform, adam, ema, log, train
from surpass.methods.offline.behavior_regularized import td3_bc
from surpass.objectives.trajectory_model import trajectory_loss
from surpass.parts import cosine
from surpass.policies.acting import none
from surpass.registry import system
from surpass.training.augmenting import policy_guided

__all__ = ["policy_guided_diffusion"]


@system("policy-guided-diffusion")
def policy_guided_diffusion(
    learner: Learner | None = None, weight: float = 1.0, length: int = 32, count: int = 8192,
    levels: int = 64, rounds: int = 10, steps: int = 10_000, model_steps: int = 100_000,
    lr: float = 2e-3, batch: int = 256, width: int = 128,
) -> Stages:  # fmt: skip
    """D(x; sigma) on segments; then `rounds` of: sample segments from its average, pushed by
    `weight` toward the policy, and train the learner (TD3+BC where none is given) on them for
    `steps`."""
    inner = td3_bc() if learner is None else learner
    options: dict[str, Any] = {**inner.source.options, "role": "synthetic", "normalize": False}
    inner = replace(inner, source=replace(inner.source, options=options))
    model = Learner(
        nets={
            "denoiser": trajectory_net(length, width),
            "denoiser_ema": ema("denoiser", 0.005),
        },
        update=(train("denoiser", trajectory_loss(), adam(cosine(lr, 0.0, steps=model_steps))),),
        act=none(),
        source=log(batch, "segments", n=length, whole=True),
        discrete=False,
    )
    sample = Transform(
        policy_guided(count, weight, levels, denoiser="denoiser_ema"), into="synthetic"
    )
    return Stages((Stage(model, model_steps), Repeat(rounds, (Stage(sample), Stage(inner, steps)))))
