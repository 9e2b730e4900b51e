"""SAC Flow: a flow policy trained end to end by SAC, as a gated recurrence over its steps."""

from __future__ import annotations

from dataclasses import replace

from surpass.forms import Learner, adam, replay, train
from surpass.methods.actor_critic import soft_actor_critic
from surpass.objectives.value import entropic
from surpass.policies.flow import gated_flow
from surpass.registry import system

__all__ = ["sac_flow"]


@system("sac-flow")
def sac_flow(
    steps: int = 4, gated: bool = True, entropy: float = 0.0, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256, warm: int = 1_000, per_step: float = 1.0, envs: int = 1,
    width: int = 256,
    hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """SAC with v = z (h - x), z = sigmoid(gate), log pi that of the noisy path; `gated` false is
    the plain flow."""
    learner = soft_actor_critic(
        gamma=gamma, lr=lr, hidden=hidden,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip
    actor = train(("pi", "alpha"), entropic(target=entropy), adam(lr))
    return replace(
        learner,
        nets={**learner.nets, "pi": gated_flow(steps, width, gated)},
        update=(learner.update[0], actor),
    )
