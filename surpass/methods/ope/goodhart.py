"""Optimizing a stand-in reward in a tabular problem: the path, where it turns, when to stop, and
the
policy for the worst reward within an angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.methods.ope.stopping import goodhart_rl
from surpass.objectives.occupancies import relevant, worst_gain, worst_reward
from surpass.tasks.tabular import TabularMDP

__all__ = ["Pressure", "cautious", "drop", "pressed", "stop_at"]


@dataclass(frozen=True)
class Pressure:
    """Policies under rising pressure to maximize a proxy: their `occupancy` [T, S, A], and the
    proxy's relevant part `proxy` [S, A]."""

    occupancy: Float[Tensor, "T S A"]
    proxy: Float[Tensor, "S A"]

    def values(self, reward: Float[Tensor, "S A"], gamma: float) -> Float[Tensor, "T"]:
        """What the policies are worth under another reward."""
        return (self.occupancy * reward).sum((1, 2)) / (1 - gamma)


def _like(mdp: TabularMDP, reward: Tensor) -> TabularMDP:
    return TabularMDP(mdp.P, reward, mdp.d0, mdp.gamma)


def pressed(
    mdp: TabularMDP, proxy: Float[Tensor, "S A"], steps: int = 50, hot: float = 10.0,
    cold: float = 0.003,
) -> Pressure:  # fmt: skip
    """Optimal policies of proxy + temperature x entropy, from hot to cold, and the greedy one.

    Raises:
        InputError: when the problem has a horizon; the geometry is that of discounted occupancies.
    """
    if mdp.horizon is not None:
        raise InputError("the stopping rule is for discounted problems; give gamma, no horizon")
    one = _like(mdp, proxy)
    found = [
        mdp.occupancy(one.solve_soft(float(t)).pi) for t in np.geomspace(hot, cold, steps)
    ]  # fmt: skip
    found.append(mdp.occupancy(one.solve().pi))
    return Pressure(torch.stack(found), relevant(proxy.double(), mdp.P, mdp.gamma))


def stop_at(path: Pressure, angle: float) -> int:
    """The last policy of the path that the rule allows."""
    form = goodhart_rl(angle)
    assert form.anchor is not None
    state = form.anchor(path.proxy)
    for i, d in enumerate(path.occupancy):
        reading, state = form.watch(state, d)  # type: ignore[call-arg]
        if reading.alarm:
            return i - 1
    return len(path.occupancy) - 1


def drop(path: Pressure, mdp: TabularMDP, reward: Float[Tensor, "S A"]) -> float:
    """The normalized drop height: how far the true value at the end lies below its best on the
    path, over the range of the true value in the problem."""
    high = float(_like(mdp, reward).solve().value)
    low = -float(_like(mdp, -reward).solve().value)
    values = path.values(reward, mdp.gamma)
    return float(values.max() - values[-1]) / max(high - low, 1e-12)


def cautious(
    mdp: TabularMDP,
    proxy: Float[Tensor, "S A"],
    reference: Float[Tensor, "S A"],
    angle: float,
    steps: int = 200,
) -> Float[Tensor, "S A"]:
    """The occupancy with the largest gain over the reference's under the worst reward within
    `angle` of the proxy, by Frank and Wolfe's method: each step solves the problem for the reward
    that is worst now.

    Args:
        reference: a policy [S, A]. angle: 0 is ordinary optimization, pi/2 stays at the reference.
    """
    way = relevant(proxy.double(), mdp.P, mdp.gamma)
    start = mdp.occupancy(reference)
    now = mdp.occupancy(_like(mdp, proxy).solve().pi)
    best, kept = start, 0.0
    for k in range(steps):
        gain = float(worst_gain(now - start, way, angle))
        if gain > kept:
            best, kept = now, gain
        toward = mdp.occupancy(_like(mdp, worst_reward(now - start, way, angle)).solve().pi)
        now = now + 2 / (k + 3) * (toward - now)
    return best
