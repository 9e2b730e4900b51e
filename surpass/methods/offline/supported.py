"""Policies that stay where a density of the log's actions is high: SPOT."""

from __future__ import annotations

from surpass.forms import Learner, Stage, Stages, adam, log, replay, train
from surpass.methods.actor_critic import twin_delayed
from surpass.objectives.support import unlikely
from surpass.objectives.value import clone, maximize
from surpass.parts import linear
from surpass.policies.acting import none
from surpass.policies.variational import action_vae
from surpass.registry import system

__all__ = ["spot"]

Hidden = tuple[int, ...]


@system("spot")
def spot(
    lam: float = 0.1, beta: float = 0.5, samples: int = 1, tight: bool = False,
    dropout: float = 0.1, end: float = 0.2, cooling: int = 1_000_000, gamma: float = 0.99,
    lr: float = 3e-4, actor_lr: float | None = None, density_lr: float = 1e-3, batch: int = 256,
    density: int = 100_000, offline: int = 1_000_000, online: int = 0, hidden: Hidden = (256, 256),
    wide: Hidden = (750, 750),
) -> Stages:  # fmt: skip
    """max Q(s, pi(s)) / mean |Q| + lam log p(pi(s)|s), p a variational density that is fitted to
    the log first; with `online` updates it goes on in the task, lam falling to `end` of itself.

    Online it draws evenly from the log and what it has done since, and observations are as they
    come, offline as well; without that stage they are standardized. `tight` weighs -log p itself,
    which is 2 dim(a) / beta times as large as the scaled bound: lam has to be smaller.
    """
    apart, nets = unlikely(samples, tight), {"density": action_vae(wide, beta=beta)}
    source = log(batch, normalize=not online, gamma=gamma)
    sizes = {"gamma": gamma, "lr": lr, "actor_lr": actor_lr, "hidden": hidden}
    fitted = Learner(
        nets, (train("density", clone("density"), adam(density_lr)),), none(), source,
        discrete=False,
    )  # fmt: skip
    kept = twin_delayed(
        maximize(scale=1.0) + lam * apart, dropout=dropout, source=source, **sizes
    )  # fmt: skip
    cooled = linear(lam, end * lam, steps=round((1.0 - end) * cooling))
    after = twin_delayed(
        maximize(scale=1.0) + cooled * apart,
        source=replay(batch, 2_000_000, warm=0, begin_with="log"), **sizes,
    )  # fmt: skip
    stages = ((fitted, density), (kept, offline), (after, online))
    return Stages(tuple(Stage(form, steps) for form, steps in stages if steps))
