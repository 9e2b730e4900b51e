"""Nash-MP: the equilibrium of a preference game by extra-gradient steps."""

from __future__ import annotations

from surpass.forms import Adam, PolicyGradient, copy, ema, rollouts
from surpass.objectives.games import log_probs_of, prox_advantage
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import ratio_loss
from surpass.parts import Number
from surpass.registry import system

__all__ = ["nash_mp"]


@system("nash-mp")
def nash_mp(
    beta: float = 0.1, eta: float = 0.0, kappa: float = 0.1, sharp: float = 0.0, group: int = 8,
    lr: Number = 1e-6, batch: int = 64, horizon: int = 256,
) -> PolicyGradient:  # fmt: skip
    """Each step answers, in turn, a slow copy of the policy and the policy itself, near that copy
    and the reference. Games that are known are solved by `objectives.games.mirror_prox`."""
    return PolicyGradient(
        prox_advantage(beta, eta, sharp), ratio_loss(), reduce=sum_over(),
        signals=(log_probs_of("target"),),
        nets={"reference": copy("policy"), "target": ema("policy", kappa)},
        source=rollouts(batch, horizon, group), optimizer=Adam(lr, max_norm=1.0),
    )  # fmt: skip
