"""Marginalized importance weights, in closed form: how much more often the target policy is in
(s, a) than the logging policy, discounted.

    w(s, a) = phi(s, a)' alpha with  E_mu[ sum_t gamma^t w (f - gamma f_pi(s')) ] = E[ f_pi(s_0) ]
    for every f in the span of phi,    f_pi(s) = sum_a pi(a|s) f(s, a)

This is minimax weight learning with linear weights and critics (Uehara, Huang and Jiang, Minimax
weight and Q-function learning for off-policy evaluation, 2020). Without a ridge its estimate is
that of least squares temporal differences on the same features. No product of ratios is taken, so
its variance does not grow with the horizon; it is as right as the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from surpass.critics.fitted_q import Fourier, here_and_later, raw
from surpass.objectives.views import TrajectoryQuery

__all__ = ["MinimaxWeights"]


@dataclass(frozen=True)
class MinimaxWeights:
    """The nuisance "marginal" [N, T] of episodes. `features` None takes the observation itself
    (one-hot states: tabular); `ridge` is in units of the system's mean squared row.

    Behind a last step that was cut stands what was observed there, behind one that ended its
    episode nothing. At a discount of 1 a cut is the horizon, and nothing stands behind it.
    """

    features: Fourier | None = None
    ridge: float = 1e-6
    per_target = True

    def learn(self, query: TrajectoryQuery) -> Callable[[TrajectoryQuery], Tensor]:
        """Solve for the weights on the episodes of a query."""
        if query.gamma == 1:
            query = replace(query, cut=None)
        inside = query.mask > 0
        seen = query.context[inside].to(torch.float64)
        made = raw if self.features is None else self.features.of(seen)

        def logged(q: TrajectoryQuery) -> tuple[Tensor, Tensor]:
            return here_and_later(q, made, made(q.context))

        here, then = logged(query)
        first = (query.target[:, 0, :, None] * made(query.context[:, 0])[:, None]).flatten(1)
        weight = (query.mask * query.discount)[..., None]
        n = len(query.reward)
        system = ((here - query.gamma * then) * weight).flatten(0, 1).T @ here.flatten(0, 1) / n
        goal = first.mean(0)
        scale = self.ridge * float(system.square().sum(1).mean())
        eye = torch.eye(len(goal), dtype=system.dtype)
        alpha = torch.linalg.solve(system.T @ system + scale * eye, system.T @ goal)
        return lambda other: (logged(other)[0] @ alpha) * other.mask
