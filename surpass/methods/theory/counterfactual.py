"""The policy nearest to a given one that earns a chosen return."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, copy, rollouts
from surpass.objectives.advantage import batch_centered
from surpass.objectives.divergence import k3
from surpass.objectives.targeting import toward
from surpass.objectives.trust import ratio_loss
from surpass.parts import Number
from surpass.registry import system

__all__ = ["counterpol"]


@system("counterpol")
def counterpol(
    target: float, span: float = 500.0, weight: float = 0.003, pivot: int | None = None,
    lr: Number = 1e-3, batch: int = 16, horizon: int = 500, max_norm: float = 0.5,
) -> PolicyGradient:  # fmt: skip
    """Descent on ((J - target) / span)^2 with a penalty for leaving where it started, whose
    gradient on own decisions is that of KL(pivot || policy).

    Train it with `policy=` the net to be explained.

    Args:
        target: the return to be hit. span: the scale of returns.
        weight: of the divergence, in a mix with the other (the paper has 0.9 with returns scaled
            otherwise; here that holds the policy where it is).
        pivot: after so many batches the penalty is centered at the policy of then; at the start by
            default.
        batch: episodes of up to `horizon` steps, whose actions are drawn (a best action would bias
            the gradient).
    """
    return PolicyGradient(
        toward(batch_centered(), target, span), (1 - weight) * ratio_loss() + weight * k3(),
        nets={"reference": copy("policy", every=pivot)}, source=rollouts(batch, horizon),
        optimizer=Adam(lr, max_norm=max_norm),
    )  # fmt: skip
