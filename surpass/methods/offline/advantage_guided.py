"""TD3 that imitates the better of a logged action and one that a density makes: A2PR."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.ensembles import value
from surpass.errors import InputError
from surpass.forms import Learner, adam, log, train
from surpass.methods.actor_critic import twin_delayed
from surpass.objectives.advantage_guided import better_of_two, clone_better
from surpass.objectives.bellman import lowest_of_both, state_td
from surpass.objectives.value import maximize
from surpass.policies.variational import action_vae
from surpass.registry import system

__all__ = ["a2pr"]

Hidden = tuple[int, ...]


@system("a2pr")
def a2pr(
    alpha: float = 2.5, mask: float = 1.0, vae_weight: float = 1.0, generate: bool = True,
    gamma: float = 0.99, lr: float = 3e-4, vae_lr: float = 1e-3, batch: int = 256,
    hidden: Hidden = (256, 256), wide: Hidden = (750, 750),
) -> Learner:  # fmt: skip
    """max alpha Q(s, pi(s)) / mean |Q| - mask m (pi(s) - a*)^2: a* is the logged action or one of a
    density of those with Q > V, whichever is worth more, and counts m times, as often as the two
    are no worse than V.

    Where a log is mostly poor a larger `vae_weight` makes the density more faithful to the rest;
    without `generate` only logged actions are imitated.
    """
    if mask < 0 or vae_weight <= 0:
        raise InputError(
            f"mask={mask:g}, vae_weight={vae_weight:g}: mask is not negative (0 is TD3), "
            "vae_weight positive"
        )
    learner = twin_delayed(
        maximize(scale=alpha) + better_of_two(mask, generate), gamma=gamma, lr=lr, hidden=hidden,
        source=log(batch, normalize=True, gamma=gamma),
        extra={"v": value(1, hidden), "density": action_vae(wide)},
    )  # fmt: skip
    critics, actor = learner.update
    beside = (
        train("v", state_td(lowest_of_both(), gamma), adam(lr)),
        train("density", clone_better(vae_weight), adam(vae_lr)),
    )
    return replace(learner, update=(critics, *beside, actor))
