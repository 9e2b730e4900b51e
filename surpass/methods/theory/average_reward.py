"""Actor-critics for what is earned per step, without a discount."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.ensembles import level
from surpass.forms import Learner, adam, replay, train
from surpass.methods.actor_critic import twin_delayed
from surpass.objectives.average_reward import differential_td
from surpass.objectives.bellman import clipped_double
from surpass.objectives.value import maximize
from surpass.policies.acting import noisy
from surpass.registry import system

__all__ = ["aro_ddpg"]


@system("aro-ddpg")
def aro_ddpg(
    tau: float = 0.005, lr: float = 3e-4, batch: int = 256, warm: int = 5_000,
    per_step: float = 1.0, envs: int = 1, noise: float = 0.2,
    hidden: tuple[int, ...] = (128, 128),
) -> Learner:  # fmt: skip
    """Twin critics of reward above the average, Q(s, a) = r - rho + min Q'(s', pi(s')), which train
    the average rho along with them, and a deterministic actor at every second update.

    Exploration adds independent Gaussian noise, where the paper's drifts. Give the task episodes as
    long as it can have: a cut is no end, but a restart is not what the policy would meet.

    Args:
        noise: of exploration, in parts of half of the range of actions.
    """
    backup = clipped_double(noise=0.0)
    form = twin_delayed(
        maximize(over="min"), backup, tau=tau, lr=lr, hidden=hidden,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip
    critics = train(("q", "rho"), differential_td(backup), adam(lr))
    return replace(
        form,
        nets={**form.nets, "rho": level()},
        update=(critics, form.update[1]),
        explore=noisy(noise),
    )
