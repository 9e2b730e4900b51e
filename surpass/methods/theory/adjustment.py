"""Plans that pay for every change: exact, with what was decided last as part of the state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.switching import Form, adjustment, switching_backup
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.fishery import Fishery

__all__ = ["Steady", "calibrated", "planned", "policy_adjustment_costs", "worth"]


class Steady(NamedTuple):
    """Decisions [T, X, A] (numbers of quotas, by step, stock and last quota) and their value
    [X, A]."""

    policy: Int[np.ndarray, "T X A"]
    value: Float[np.ndarray, "X A"]


@part
def planned(
    model: Fishery, /, form: Form = "linear", c: float = 1.0, horizon: int = 20,
    discount: float = 0.05, stale: bool = False,
) -> Steady:  # fmt: skip
    """Backward over the steps with `switching_backup`, gamma = 1 - discount.

    `stale` goes on with the value of the last quota instead of the new one's, as the published
    program does: wrong, to reproduce its figures.
    """
    cost = adjustment(form, c, model.quotas)
    v, policy = np.zeros((len(model.stocks), len(model.quotas))), []
    for _ in range(horizon):
        q = switching_backup(model.profit, model.P, cost, v, 1 - discount)
        if stale:
            ahead = np.einsum("sat,tb->sba", model.P, v)
            q = model.profit[:, None] - cost[None] + (1 - discount) * ahead
        policy.append(q.argmax(-1))
        v = q.max(-1)
    return Steady(np.stack(policy[::-1]), v)


def worth(
    model: Fishery, policy: Int[np.ndarray, "T X A"], form: Form = "none", c: float = 0.0,
    discount: float = 0.05,
) -> Float[np.ndarray, "X A"]:  # fmt: skip
    """What a policy earns when changes cost this, exactly, by stock and last quota."""
    cost = adjustment(form, c, model.quotas)
    v = np.zeros(policy.shape[1:])
    for step in policy[::-1]:
        q = switching_backup(model.profit, model.P, cost, v, 1 - discount)
        v = np.take_along_axis(q, step[..., None], -1)[..., 0]
    return v


def calibrated(
    model: Fishery, form: Form, fall: float, horizon: int = 20, discount: float = 0.05
) -> float:
    """The c at which the optimum at capacity falls by the share `fall`, so that forms compare; the
    first quota costs nothing.

    Raises:
        InputError: when no c up to 1,000 does that.
    """
    at = model.nearest(model.capacity)

    def lost(c: float) -> float:
        value = planned(form, c, horizon, discount)(model).value[at].max()
        return 1 - value / free - fall

    free = planned("none", 0.0, horizon, discount)(model).value[at].max()
    if lost(1000.0) < 0:
        raise InputError(f"no cost of this form lowers the optimum by {fall:.0%}")
    return float(brentq(lost, 0.0, 1000.0, xtol=1e-4))  # type: ignore[arg-type]


@system("policy-adjustment-costs")
def policy_adjustment_costs(
    form: Form = "linear", c: float = 1.0, horizon: int = 20, discount: float = 0.05,
    stale: bool = False,
) -> Planner:  # fmt: skip
    """A plan for a varying stock when quotas are costly to change: what it is worth to say so, and
    what it costs to be wrong about it.

    Args:
        form: linear or quadratic in the change, or fixed. c: its size, as of `calibrated`.
        horizon: steps. discount: per step. stale: the published recursion.
    """
    return Planner(planned(form, c, horizon, discount, stale))
