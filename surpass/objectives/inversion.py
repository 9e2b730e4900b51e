"""What an agent believes the world does, from its values: Bellman's equation solved for the model.

For every goal g, with a reward r(s', g) that is paid where one arrives,

    Q(s, a, g) = E_{s' ~ P(s, a)}[m(s', g)],  m(s', g) = r(s', g) + gamma (1 - done(s', g)) V(s', g)

is linear in P: as many equations for P(. | s, a) as there are goals. A kernel is determined where m
[G, S] has rank S (or S - 1, as it sums to one); one of which is known where it may lead, by fewer;
a deterministic one by a single goal whose m tells all states apart. No step of the environment is
needed.

"Inverting the Bellman Equation: From Q-Values to World Models" (2025).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import nnls
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part

__all__ = ["Beliefs", "explained", "least_norm", "nearest_next", "on_simplex"]


class Beliefs(NamedTuple):
    """What an agent of G goals has learned about S states and A actions.

    Attributes:
        q: [S, A, G]. reward: paid for arriving, [G, S]. gamma: the discount.
        done: whether arriving ends the episode, [G, S]; nowhere by default.
        v: of its policy, [S, G]; the best action's by default.
    """

    q: Float[Tensor, "S A G"]
    reward: Float[Tensor, "G S"]
    gamma: float
    done: Bool[Tensor, "G S"] | None = None
    v: Float[Tensor, "S G"] | None = None

    @property
    def arrived(self) -> Float[Tensor, "G S"]:
        """m(s', g), what arriving is worth.

        Raises:
            InputError: when the tables do not fit one another, or are not finite.
        """
        q = self.q.double()
        G, S = self.reward.shape
        if q.dim() != 3 or (q.shape[0], q.shape[2]) != (S, G):
            raise InputError(
                f"q is [states, actions, goals] = [{S}, A, {G}] by the rewards, not {list(q.shape)}"
            )
        if not torch.isfinite(q).all():
            raise InputError(f"q is not finite at {(~torch.isfinite(q)).nonzero()[0].tolist()}")
        v = q.amax(1) if self.v is None else self.v.double()
        future = v.T if self.done is None else torch.where(self.done, 0.0, v.T)
        return self.reward.double() + self.gamma * future

    def goals(self, which: Any) -> Beliefs:
        """The same agent, asked about some of its goals only."""
        return Beliefs(
            self.q[..., which], self.reward[which], self.gamma,
            None if self.done is None else self.done[which],
            None if self.v is None else self.v[:, which],
        )  # fmt: skip


def _allowed(support: Any, S: int, A: int) -> Bool[Tensor, "S A S"]:
    """Where each step may lead, from [S, S] or [S, A, S]."""
    if support is None:
        return torch.ones(S, A, S, dtype=torch.bool)
    known = torch.as_tensor(support, dtype=torch.bool)
    known = known[:, None] if known.dim() == 2 else known
    if known.shape[0] != S or known.shape[-1] != S:
        raise InputError(f"support is [{S}, {S}] or [{S}, {A}, {S}], not {list(known.shape)}")
    if not known.any(-1).all():
        raise InputError(f"state {int((~known.any(-1)).nonzero()[0, 0])} leads nowhere by support")
    return known.expand(S, A, S)


@part
def least_norm(seen: Beliefs, /, prior: Any = None) -> Float[Tensor, "S A S"]:
    """m^+ Q(s, a, .) + (I - m^+ m) p_0: the solution nearest to p_0 (even where not given), which
    is where gradient descent from p_0 ends. Its entries may be negative."""
    m = seen.arrived
    S = m.shape[1]
    p0 = (
        torch.full((S,), 1 / S, dtype=m.dtype) if prior is None else torch.as_tensor(prior).double()
    )
    inverse = torch.linalg.pinv(m)
    return seen.q.double() @ inverse.T + (p0 - p0 @ m.T @ inverse.T)


@part
def on_simplex(seen: Beliefs, /, support: Any = None, sums: float = 1e3) -> Float[Tensor, "S A S"]:
    """The distribution that explains Q(s, a, .) best: least squares over p >= 0, sum p = 1, where
    `support` ([S, S] or [S, A, S]) allows. The sum is one more equation, `sums` times as heavy as
    the heaviest goal."""
    m, q = seen.arrived.numpy(), seen.q.double().numpy()
    S, A, _ = q.shape
    known = _allowed(support, S, A).numpy()
    heavy = sums * max(float(np.abs(m).max()), 1e-12)
    P = np.zeros((S, A, S))
    for s in range(S):
        for a in range(A):
            at = known[s, a]
            rows = np.vstack([m[:, at], np.full(at.sum(), heavy)])
            P[s, a, at] = nnls(rows, np.append(q[s, a], heavy))[0]
    return torch.from_numpy(P / P.sum(-1, keepdims=True))


@part
def nearest_next(seen: Beliefs, /, support: Any = None) -> Float[Tensor, "S A S"]:
    """The one next state argmin_{s'} sum_g |m(s', g) - Q(s, a, g)| of a deterministic world; the
    first of several."""
    m, q = seen.arrived, seen.q.double()
    far = (m.T - q[:, :, None]).abs().sum(-1)  # [S, A, S']
    far = far.masked_fill(~_allowed(support, *q.shape[:2]), torch.inf)
    return torch.nn.functional.one_hot(far.argmin(-1), m.shape[1]).double()


@part
def explained(
    nets: Nets, rows: Rows, /, gamma: float = 0.99, squared: bool = False, model: str = "model",
    agent: str = "agent",
) -> Float[Tensor, "B"]:  # fmt: skip
    """|Q(s, a, g) - m(f(s, a), g)| of a model f of a deterministic world, at states and actions of
    the batch and goals drawn evenly; or its square.

    The agent is a net with `goals` [G, k] and, by their numbers, `all(obs, goal)` [B, A], and
    `reward(obs, goal)` and `done(obs, goal)` [B] of arriving, as
    `surpass.critics.grid_values.GoalGrid`. Its weights stay; gradient reaches f through its inputs,
    so that f learns nothing where values are flat.
    """
    judge = nets[agent]
    goal = torch.randint(judge.goals.shape[0], rows.obs.shape[:1], device=rows.obs.device)
    with torch.no_grad():
        believed = judge.all(rows.obs, goal).gather(-1, rows.action.long()[:, None])[:, 0]
    after = nets[model](rows.obs, rows.action)
    goes_on = 1.0 - judge.done(after, goal)
    arrived = judge.reward(after, goal) + gamma * goes_on * judge.all(after, goal).amax(-1)
    error = believed - arrived
    return error.square() if squared else error.abs()
