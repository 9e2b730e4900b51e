"""Drifts of mirror learning: how a policy pays for moving away from the anchor.

    maximize  E[r A - f(r, A)],   f >= 0,  f(1, A) = 0,  df/dr(1, A) = 0

Any such f gives monotone improvement in the tabular case (Mirror Learning: A Unifying Framework of
Policy Optimisation, 2022). A drift is a part of `Steps`; `mirror(drift)` is the trust rule.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from surpass.objectives.views import Steps
from surpass.parts import Part, part

__all__ = ["clipped_away", "discovered", "drift_net", "learned", "mirror", "no_drift", "weights_of"]

FEATURES, MARGIN = 8, 1e-4


@part
def no_drift(s: Steps, /) -> Float[Tensor, "B T"]:
    """f = 0: the importance-weighted surrogate alone."""
    return torch.zeros_like(s.log_ratio)


@part
def clipped_away(s: Steps, /, low: float = 0.2, high: float = 0.2) -> Float[Tensor, "B T"]:
    """ReLU((r - clip(r)) A): PPO as a drift, since r A less this is min(r A, clip(r) A)."""
    ratio = s.log_ratio.exp()
    return torch.relu((ratio - ratio.clamp(1 - low, 1 + high)) * s.advantage)


@part
def discovered(s: Steps, /, alpha: float = 2.0, beta: float = 0.6) -> Float[Tensor, "B T"]:
    """ReLU(x - a tanh(x / a)): x = (r - 1) A, a = `alpha` where A >= 0, x = log(r) A, a = `beta`
    where A < 0. It restrains what moves with the advantage, and late: good actions may become much
    likelier than a clip lets them, bad ones at first lose little.

    "Discovered Policy Optimisation" (2022).
    """
    good, bad = (s.log_ratio.exp() - 1.0) * s.advantage, s.log_ratio * s.advantage
    up = torch.relu(good - alpha * torch.tanh(good / alpha))
    down = torch.relu(bad - beta * torch.tanh(bad / beta))
    return torch.where(s.advantage >= 0, up, down)


@part
def learned(
    s: Steps, /, weights: tuple[float, ...] = (), hidden: int = 128, start: float = 0.0
) -> Float[Tensor, "B T"]:
    """ReLU(g(log r, 1 - r, A) - 1e-4), g a perceptron without biases, so that f and its slope are 0
    about r = 1; with `start` > 0 the drift of PPO of that range is added inside.

    Learned Policy Optimisation of "Discovered Policy Optimisation" (2022).

    Args:
        weights: of g, `9 hidden` numbers as `weights_of` takes them apart; none: g = 0.
    """
    flat = torch.tensor(weights if weights else (0.0,) * (9 * hidden), dtype=s.log_ratio.dtype)
    inner = drift_net(flat.to(s.log_ratio.device), s.log_ratio, s.advantage)
    if start > 0:
        inner = inner + clipped_away(start, start)(s)
    return torch.relu(inner - MARGIN)


@part
def mirror(s: Steps, /, drift: Part[[Steps], Tensor] = discovered()) -> Float[Tensor, "B T"]:
    """-(r A - f): the trust rule of a drift."""
    return drift(s) - s.log_ratio.exp() * s.advantage


def weights_of(flat: Float[Tensor, "9h"]) -> tuple[Float[Tensor, "h 8"], Float[Tensor, "h"]]:
    """The two layers of the perceptron of a learned drift."""
    hidden = flat.shape[-1] // (FEATURES + 1)
    return flat[: FEATURES * hidden].reshape(hidden, FEATURES), flat[FEATURES * hidden :]


def drift_net(
    flat: Float[Tensor, "9h"], log_ratio: Float[Tensor, "..."], advantage: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """g = w2 tanh(W1 x), x = (log r, log^2 r, 1 - r, (1 - r)^2) and A times these; 0 at r = 1."""
    into, out = weights_of(flat)
    gap = 1.0 - log_ratio.exp()
    plain = torch.stack([log_ratio, log_ratio.square(), gap, gap.square()], -1)
    x = torch.cat([plain, advantage[..., None] * plain], -1)
    return torch.tanh(x @ into.T) @ out
