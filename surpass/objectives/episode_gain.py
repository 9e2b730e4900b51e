"""The paired score of an episode: what a target policy gains on the policy that logged it, with a
lower limit that is known before the rewards are.

    phi = sum_t gamma^t [ w_t (r_t - u_t) + w_{t-1} u_t - r_t ],    w_t = rho_{0:t},  w_{-1} = 1

Its mean is the gain for any u_t that depends on what was seen before a_t: per-decision importance
sampling with a value baseline, which is the doubly robust score with q(s, a) = v(s) = u. It needs
the probability of the logged action only, and vanishes, noise and all, as the target nears the
logging policy.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["episode_gains", "span"]


def span(gamma: float, steps: int) -> float:
    """sum_{t < steps} gamma^t."""
    return float(steps) if gamma == 1.0 else (1.0 - gamma**steps) / (1.0 - gamma)


def episode_gains(
    ratio: Float[Tensor, "N T"],
    top: Float[Tensor, "N T"],
    reward: Float[Tensor, "N T"],
    mask: Float[Tensor, "N T"],
    value: Float[Tensor, "N T"],
    *,
    limits: tuple[float, float],
    gamma: float = 1.0,
    horizon: int | None = None,
    room: float = 1.0,
) -> tuple[Float[Tensor, "N"], float]:
    """Scores, one per episode, and the smallest value that one could take.

    Rewards are counted from the lowest, r_t - low in [0, R], on all `horizon` steps (a step that an
    ended episode no longer takes pays 0), so that w_t r_t >= 0. That shifts no gain, because
    E[w_t] = 1 at every step. The baseline is kept so small that no episode can fall by more than
    `room` times the largest return: with S the score so far and B = room * R sum gamma^t,

        u_t <- min(max(v_t, 0), (B + S) / (gamma^t w_{t-1} max(top_t - 1, 0))),

    so S >= -B always, and phi >= -(room + 1) R sum gamma^t. `top` has to bound the ratio of every
    action that the logging policy can take; where a logged ratio is above it (a fitted bound, where
    only the logged action's probability is known), the limit is lowered to what was seen.

    Args:
        ratio: target over logged probability of the logged action; 1 behind the end.
        top: the largest ratio that any action could have had in that state.
        reward, mask: as logged; 0 behind the end.
        value: predicted sum of what is still to come of r - low, discounted from that step on.
        limits: lowest and highest reward of a step that can occur.
        gamma: discount. horizon: the most steps an episode can have; T when not given.
        room: B in units of the largest return.
    """
    n, T = ratio.shape
    horizon = T if horizon is None else horizon
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    largest = (high - low) * span(gamma, horizon)
    budget = room * largest
    weight = torch.ones(n, dtype=torch.float64)
    so_far = torch.zeros(n, dtype=torch.float64)
    paid = torch.zeros(n, dtype=torch.float64)
    for t in range(T):
        factor = gamma**t
        inside = mask[:, t].double()
        shifted = reward[:, t].double() * inside - low
        spread = factor * weight * (top[:, t].double() - 1.0).clamp_min(0.0)
        most = torch.where(spread > 0, (budget + so_far) / spread.clamp_min(1e-300), torch.inf)
        u = torch.minimum(value[:, t].double().clamp_min(0.0), most.clamp_min(0.0)) * inside
        after = torch.where(inside > 0, weight * ratio[:, t].double(), weight)
        so_far = so_far + factor * (after * (shifted - u) + weight * u)
        paid = paid + factor * shifted
        weight = after
    rest = gamma**T * span(gamma, horizon - T) * (0.0 - low)
    score = so_far - paid + rest * (weight - 1.0)
    floor = -(room + 1.0) * largest
    return score, min(floor, float(score.min())) if n else floor
