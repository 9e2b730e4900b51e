"""H2O: a small real log and an imperfect simulator, learned from at once."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.domains import domains
from surpass.forms import Learner, adam, log, mix, replay, train
from surpass.methods.actor_critic import soft_actor_critic
from surpass.objectives.bellman import soft, td
from surpass.objectives.domains import pushed_down, tell_apart, trusted
from surpass.parts import stop
from surpass.registry import system

__all__ = ["h2o"]


@system("h2o")
def h2o(
    beta: float = 0.01, noise: float = 0.1, samples: int = 10, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256, warm: int = 1_000, per_step: float = 1.0,
    envs: int = 1, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """E_real[(Q - y)^2] + E_sim[w (Q - y)^2] + beta (log sum_sim omega e^Q - E_real[Q]): simulated
    errors weighted by w = P_real / P_sim, their values pushed down where the dynamics differ; the
    actor is SAC's. `log` is real, `task` the simulator."""
    half = batch // 2
    both = 2.0 * stop(trusted()) * td(soft(entropy=False), gamma)  # the mean of either half
    critic = both + beta * pushed_down(samples)
    learner = soft_actor_critic(
        critic, gamma=gamma, lr=lr, hidden=hidden,
        source=mix(batch, log=(0.5, log(half)),
                   replay=(0.5, replay(batch - half, warm=warm, per_step=per_step, envs=envs))),
    )  # fmt: skip
    return replace(
        learner,
        nets={**learner.nets, "domains": domains(hidden)},
        update=(train("domains", tell_apart(noise), adam(lr)), *learner.update),
    )
