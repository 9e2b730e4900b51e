"""Imitation: the policy that makes the logged actions most likely."""

from __future__ import annotations

from surpass.forms import Learner, adam, log, train
from surpass.objectives.value import clone
from surpass.policies.acting import mean, sampled
from surpass.policies.gaussian import actor
from surpass.registry import system

__all__ = ["bc"]


@system("bc")
def bc(lr: float = 3e-4, hidden: tuple[int, ...] = (256, 256), batch: int = 256) -> Learner:
    """max E_log[log pi(a|s)]."""
    return Learner(
        nets={"pi": actor(hidden)},
        update=(train("pi", clone(), adam(lr)),),
        act=mean(),
        explore=sampled(),
        source=log(batch, normalize=True),
    )
