"""Action values of two related groups: what both share, and a correction that one group has alone.

The group is one of the observation's numbers, 0 for the background and 1 for the foreground, so
that whoever acts can say it; standardized columns will do as well, for only the sign of the
number, above 0 or not, is read.

Nested Policy Reinforcement Learning (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from surpass.critics.ensembles import Critic
from surpass.critics.fitted_q import Fourier
from surpass.critics.fitted_values import Features, linear, taken
from surpass.data.records import Transitions
from surpass.forms import Policy, Spaces
from surpass.objectives.bellman import target_of
from surpass.objectives.rows import Rows
from surpass.parts import Nets, part
from surpass.policies.acting import NetPolicy

__all__ = [
    "NestedValues", "best_of_both", "both_values", "correction", "greedy_fit", "nested_greedy",
    "nested_ridge", "nested_td", "of_group",
]  # fmt: skip


def of_group(
    obs: Float[Tensor, "B d"], column: int = -1
) -> tuple[Float[Tensor, "B d"], Bool[Tensor, "B"]]:
    """What else was observed, the group's number set to 0, and whether the row is of the
    foreground."""
    there = torch.arange(obs.shape[-1], device=obs.device) == column % obs.shape[-1]
    return torch.where(there, 0.0, obs), obs[..., column] > 0


@part
def correction(spaces: Spaces, /, hidden: tuple[int, ...] = (64, 64)) -> nn.Module:
    """A critic that is 0 at first, by its last layer only: were all layers 0, nothing would reach
    those before."""
    net = Critic(spaces, 1, tuple(hidden), False, "scalar", 1, (0.0, 1.0))
    last = net.net.depth - 1
    for name in (f"weight{last}", f"bias{last}"):
        nn.init.zeros_(getattr(net.net, name))
    return net


def both_values(
    nets: Nets, obs: Float[Tensor, "B d"], column: int = -1, kind: str = ""
) -> Float[Tensor, "B A"]:
    """Q(s, a, g) = Q_sh(s, a) + g Q_fg(s, a) of the nets `shared` and `own`, neither of which sees
    g; `kind` "_target" takes their copies."""
    rest, foreground = of_group(obs, column)
    base, more = (nets[name + kind].all(rest)[0] for name in ("shared", "own"))
    return base + torch.where(foreground[:, None], more, 0.0)


@part
def best_of_both(nets: Nets, rows: Rows, /, column: int = -1) -> Float[Tensor, "B"]:
    """max_b Q(s', b, g), of the copies: the group stays what it is."""
    return both_values(nets, rows.next_obs, column, "_target").amax(-1)


@part
def nested_td(
    nets: Nets, rows: Rows, /, gamma: float = 0.95, group: int = 0, column: int = -1
) -> Float[Tensor, "B"]:
    """(Q(s, a, g) - y)^2 on the rows of one group, 0 on others."""
    y = target_of(nets, rows, best_of_both(column), gamma)
    values = both_values(nets, rows.obs, column)
    chosen = values.gather(-1, rows.action.long()[:, None])[:, 0]
    _, foreground = of_group(rows.obs, column)
    return torch.where(foreground == bool(group), (chosen - y).square(), 0.0)


@part
def nested_greedy(nets: Nets, roles: Any, /, column: int = -1) -> Policy:
    """The action of the largest value, for the group that the observation says."""
    return NetPolicy(lambda obs: (both_values(nets, obs, column).argmax(-1), None))


# ----------------------------------------------------------------------------------------------
# the same by ridge regression


@dataclass(frozen=True)
class NestedValues:
    """q(s, a, g) = phi(s)'b_a + g psi(s)'c_a; acts by the best one. `features`: phi and psi;
    `shared`, `own`: b [A, k] and c [A, l]."""

    features: tuple[Features, Features]
    shared: Tensor
    own: Tensor
    column: int

    def q(self, obs: Float[Tensor, "N d"]) -> Float[Tensor, "N A"]:
        """The values of all actions; the last number of an observation is the group, or that in
        `column`."""
        rest, foreground = of_group(obs, self.column)
        phi, psi = (made(rest) for made in self.features)
        return phi @ self.shared.T + foreground[:, None] * (psi @ self.own.T)

    def predict(self, obs: Any) -> np.ndarray:
        """The best action for observations [N, d]."""
        return self.q(torch.as_tensor(obs)).argmax(-1).numpy()


def greedy_fit(
    now: Float[Tensor, "N Ak"], then: Float[Tensor, "N k"], reward: Float[Tensor, "N"],
    goes_on: Float[Tensor, "N"], gamma: float, ridge: float, rounds: int,
    base: tuple[Tensor, Tensor] | None = None, bounds: tuple[float, float] | None = None,
) -> Float[Tensor, "A k"]:  # fmt: skip
    """theta after so many rounds of fitted Q-iteration from 0,

        argmin sum (phi(s, a)'theta - (r + gamma (1 - terminated) max_b q(s', b) - q0(s, a)))^2
               + ridge |theta|^2,   q(s', b) = q0(s', b) + phi(s', b)'theta,

    with values within `bounds`. `base` is q0 of the logged actions [N] and of all at s' [N, A]; 0
    where there is none. Ernst, Geurts and Wehenkel, Tree-based batch mode reinforcement learning
    (2005), with a linear regression.
    """
    k = then.shape[1]
    here, after = base or (torch.zeros_like(reward), then.new_zeros(len(then), now.shape[1] // k))
    low, high = bounds or (-torch.inf, torch.inf)
    gram = now.T @ now
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    theta = now.new_zeros(now.shape[1])
    for _ in range(rounds):
        best = (after + then @ theta.view(-1, k).T).amax(-1).clamp(low, high)
        y = reward + gamma * goes_on * best - here
        theta = torch.cholesky_solve((now.T @ y)[:, None], factor)[:, 0]
    return theta.view(-1, k)


@part
def nested_ridge(
    log: Transitions, /, gamma: float = 0.95, features: Fourier | None = Fourier(150, 3.0),
    own: Fourier | None = None, ridge: float = 1.0, shrink: float = 100.0, rounds: int = 100,
    column: int = -1,
) -> NestedValues:  # fmt: skip
    """Fitted Q-iteration on the background; then on what the foreground's targets have beyond it.

    Penalties count as rows do: a foreground of few rows stays near the background. `features` and
    those of the correction, `own`, are standardized by the background's rows; None is the
    standardized observation.
    """
    rest, foreground = of_group(log.obs.reshape(len(log.reward), -1).double(), column)
    behind, _ = of_group(log.next_obs.reshape(len(log.reward), -1).double(), column)
    home = rest[~foreground] if (~foreground).any() else rest
    phi, psi = (linear(home)[0] if f is None else f.of(home) for f in (features, own))
    actions = max(len(log.about.actions), int(log.about.spaces.get("n_actions", 0)),
                  int(log.action.max()) + 1)  # fmt: skip
    chosen = nn.functional.one_hot(log.action.long(), actions).double()
    reward, goes_on = log.reward.double(), 1.0 - log.terminated.double()
    low, high = (float(x) / (1.0 - gamma) for x in (reward.min(), reward.max()))
    bounds = (min(low, 0.0), max(high, 0.0))

    def fit(made: Features, rows: Tensor, penalty: float, base: Any = None) -> Tensor:
        then = made(behind[rows])
        if not rows.any():
            return then.new_zeros(actions, then.shape[1])
        now = taken(made(rest[rows]), chosen[rows])
        return greedy_fit(
            now, then, reward[rows], goes_on[rows], gamma, penalty, rounds, base, bounds
        )

    shared = fit(phi, ~foreground, ridge)
    here, then = (phi(x[foreground]) @ shared.T for x in (rest, behind))
    base = ((here * chosen[foreground]).sum(-1), then)
    return NestedValues((phi, psi), shared, fit(psi, foreground, shrink, base), column)
