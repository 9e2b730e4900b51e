"""D3S: GRPO on the rollouts and the tokens of a batch that teach most."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.down_sampling import uncertain_decisions, widest_spread
from surpass.objectives.reduce import token_mean
from surpass.objectives.trust import clip
from surpass.parts import Number, linear, stop
from surpass.registry import system

__all__ = ["d3s"]


@system("d3s")
def d3s(
    first: tuple[float, float] = (0.25, 0.2), last: tuple[float, float] = (1.0, 1.0),
    over: int = 200, eps: float = 0.2, group: int = 16, lr: Number = 1e-6, batch: int = 256,
    horizon: int = 256, minibatches: int = 1,
) -> PolicyGradient:  # fmt: skip
    """The share of rollouts of the widest spread of advantages, and of their tokens those of the
    largest |A| H; both shares go from `first` to `last` (rollouts, tokens) over so many batches."""
    rollout, token = (linear(a, b, steps=over) for a, b in zip(first, last, strict=True))
    return PolicyGradient(
        group_standardized(), stop(uncertain_decisions(token)) * clip(eps, eps),
        select=widest_spread(rollout), reduce=token_mean(), minibatches=minibatches,
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
