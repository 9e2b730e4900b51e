"""Values as the dual of a divergence: what V(s) has to be, given Q of logged actions, so that it is
their best in a sense that the divergence decides.

    minimize over V   (1 - lam) E[V(s)] + lam E[f*(Q(s, a) - V(s))]

A conjugate f* is a part that takes u = Q - V to the loss, lam and the linear term included.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.errors import InputError
from surpass.objectives.rows import Rows
from surpass.parts import Nets, Part, part

__all__ = [
    "chi_square", "dual_value", "gumbel", "imitated", "other_than", "total_variation",
]  # fmt: skip


@part
def chi_square(u: Tensor, /, lam: float = 1.0) -> Tensor:
    """lam max(u + u^2 / 4, 0) - (1 - lam) u.

    With lam = 1 values that are up to 4 too high stay: give rewards a size to which that is small.

    Dual RL: Unification and New Methods for Reinforcement and Imitation Learning (2023).
    """
    return lam * (u + 0.25 * u.square()).clamp(min=0.0) - (1.0 - lam) * u


@part
def total_variation(u: Tensor, /, lam: float = 0.8) -> Tensor:
    """lam max(u, 0) - (1 - lam) u: V is the quantile of Q of level 2 - 1 / lam.

    Dual RL: Unification and New Methods for Reinforcement and Imitation Learning (2023).
    """
    return lam * u.clamp(min=0.0) - (1.0 - lam) * u


@part
def gumbel(u: Tensor, /, lam: float = 1.0, clip: float = 5.0) -> Tensor:
    """exp(z) - z - 1, z = min(u / lam, clip), over exp of its largest z in the batch (of -1 where
    that is less): V is lam log E[exp(Q / lam)].

    Extreme Q-Learning: MaxEnt RL without Entropy (XQL, 2023), with the clipping and scaling of its
    code, which hold the size of one update but not its sum.
    """
    z = (u / lam).clamp(max=clip)
    top = z.detach().amax().clamp(min=-1.0)
    return (z - top).exp() - (z + 1.0) * (-top).exp()


@part
def dual_value(
    nets: Nets, rows: Rows, /, f: Part[[Tensor], Tensor], random: int = 0, q: str = "q_target",
    v: str = "v",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The mean of f(min_i Q_i(s, a) - V(s)) over the logged action and `random` even ones of the
    same state, summed over the members of V."""
    critic, here = nets[q], nets[v](rows.obs)
    worth = critic(rows.obs, rows.action).amin(0)[None]
    if random:
        shape = (random, *rows.action.shape)
        if rows.action.is_floating_point():
            others = torch.rand(shape, device=rows.action.device) * 2.0 - 1.0
        else:
            others = torch.randint(critic.actions, shape, device=rows.action.device)
        worth = torch.cat([worth, critic(rows.obs, others).amin(0)])
    return f(worth - here[:, None]).mean(1).sum(0)


# ----------------------------------------------------------------------------------------------
# imitation: rows of an expert beside a mixture


def _mark(rows: Rows, source: str) -> Tensor:
    if source not in rows.sources:
        raise InputError(
            f"a part looks for rows of the source {source!r}; the batch draws from "
            f"{', '.join(rows.sources)}"
        )
    return rows.source == rows.sources.index(source)


@part
def other_than(nets: Nets, rows: Rows, /, source: str = "expert") -> Float[Tensor, "B"]:
    """1 for rows that come from another source, else 0: what multiplies a loss."""
    return 1.0 - _mark(rows, source).to(rows.obs.dtype)


@part
def imitated(
    nets: Nets, rows: Rows, /, gamma: float = 0.99, best: float = 200.0, step: float = -2.0,
    end: float = -200.0, source: str = "expert", q: str = "q", v: str = "v",
) -> Float[Tensor, "B"]:  # fmt: skip
    """The critic's loss toward `best` for rows of the source `source`, and for all others toward

        step + gamma ((1 - terminated) V(s') + terminated end)

    summed over the ensemble. No reward is read. The code of ReCOIL takes these constants from
    "LS-IQ: Implicit Reward Regularization for Inverse Reinforcement Learning" (2023).
    """
    after = nets[v](rows.next_obs).amin(0).detach()
    y = step + gamma * torch.where(rows.terminated > 0, end, after)
    y = torch.where(_mark(rows, source), best, y)
    return nets[q].fit(rows.obs, rows.action, y).sum(0)
