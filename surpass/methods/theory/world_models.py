"""World models that are read out of an agent's values."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surpass.critics.dynamics import residual
from surpass.forms import Learner, Planner, adam, box, given, train
from surpass.objectives.inversion import explained, on_simplex
from surpass.parts import Part, cosine, part
from surpass.policies.acting import none
from surpass.registry import system
from surpass.tasks.tabular import Solution, TabularMDP

__all__ = ["Wanted", "p_learning", "p_learning_net", "planned"]


class Wanted(NamedTuple):
    """A goal in a world of S states: `P` [S, A, S], the `reward` [S] of arriving, `gamma`, where
    it is `done` [S] (nowhere by default), and the starts `d0` [S] (even by default)."""

    P: Float[Tensor, "S A S"]
    reward: Float[Tensor, "S"]
    gamma: float
    done: Bool[Tensor, "S"] | None = None
    d0: Float[Tensor, "S"] | None = None

    @property
    def mdp(self) -> TabularMDP:
        """The problem as tables."""
        S = len(self.reward)
        d0 = torch.full((S,), 1 / S) if self.d0 is None else self.d0
        return TabularMDP(self.P, self.P @ self.reward.double(), d0, self.gamma, None, self.done)


@part
def planned(wanted: Wanted, /) -> Solution:
    """The optimal policy in the model, by policy iteration."""
    return wanted.mdp.solve()


@system("p-learning")
def p_learning(recover: Part[[Any], Tensor] = on_simplex()) -> Planner:
    """min over P >= 0, sum P = 1, of |Q(s, a, .) - P m|^2: `model` takes `Beliefs` and gives the
    kernel that the agent believes in, `solve` takes `Wanted` and plans for a goal in it.

    Args:
        recover: `on_simplex` (with the `support` that is known), `nearest_next` for deterministic
            worlds, or `least_norm`.
    """
    return Planner(planned(), recover)


@system("p-learning:net")
def p_learning_net(
    low: tuple[float, ...], high: tuple[float, ...], gamma: float = 0.99, lr: float = 1e-4,
    steps: int = 20_000, batch: int = 4096, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """The same for deterministic worlds of numbers: a net f(s, a) that explains the agent's values,
    |Q(s, a, g) - m(f(s, a), g)|, in a box of states. `train` is given the net `agent`, which stays
    as it is, and a task, for its spaces only.

    Args:
        low, high: of the box. gamma: the agent's. lr, steps: of Adam, falling to 0 as a cosine.
    """
    return Learner(
        nets={"model": residual(tuple(low), tuple(high), hidden), "agent": given("agent")},
        update=(train("model", explained(gamma), adam(cosine(lr, 0.0, steps=steps))),),
        act=none(),
        source=box(low, high, batch),
        discrete=True,
    )
