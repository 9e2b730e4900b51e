"""DSRL: a frozen diffusion or flow policy, steered by the noise it starts from."""

from __future__ import annotations

from surpass.critics.ensembles import critic, dual
from surpass.forms import Learner, Stage, Stages, Transform, adam, ema, given, replay, train
from surpass.methods.actor_critic import soft_actor_critic
from surpass.objectives.bellman import td
from surpass.objectives.latent import decoded_backup, distilled
from surpass.objectives.value import entropic
from surpass.policies.gaussian import gaussian
from surpass.policies.selecting import decoded
from surpass.registry import system
from surpass.tasks.transformed import latent_actions

__all__ = ["dsrl", "latent_sac"]

Hidden = tuple[int, ...]


@system("dsrl")
def dsrl(
    bound: float = 1.5, per_step: float = 20.0, distill: int = 1, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256, warm: int = 1_500, envs: int = 1,
    hidden: Hidden = (256, 256, 256),
) -> Learner:  # fmt: skip
    """Q on actions, distilled into Q^W on noise; SAC on the noise; hand in the frozen net as
    `base`."""
    return Learner(
        nets={
            "base": given("base"),
            "q": critic(2, hidden, norm=True),
            "q_latent": critic(2, hidden, norm=True),
            "pi": gaussian(hidden),
            "alpha": dual(),
            "q_target": ema("q", 0.005),
        },
        update=(
            train("q", td(decoded_backup(bound), gamma), adam(lr)),
            train("q_latent", distilled(bound), adam(lr), times=distill),
            train(("pi", "alpha"), entropic(q="q_latent", target=0.0), adam(lr)),
        ),
        act=decoded(bound),
        explore=decoded(bound, draw=True),
        source=replay(batch, warm=warm, per_step=per_step, envs=envs, warm_with="policy"),
        discrete=False,
    )


@system("dsrl:sac")
def latent_sac(
    bound: float = 1.5, per_step: float = 1.0, gamma: float = 0.99, lr: float = 3e-4,
    batch: int = 256, warm: int = 1_500, envs: int = 1, hidden: Hidden = (256, 256),
    steps: int = 100_000,
) -> Stages:  # fmt: skip
    """Plain SAC in the task whose action is the noise."""
    learner = soft_actor_critic(
        gamma=gamma, lr=lr, hidden=hidden, target_entropy=0.0,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip
    around = Transform(latent_actions("base", bound), into="task")
    return Stages((Stage(around), Stage(learner, steps)))
