"""CFPI: a cloned behavior policy and its critic; the improvement is a formula, when it acts."""

from __future__ import annotations

from surpass.critics.ensembles import critic
from surpass.forms import Learner, adam, ema, log, train
from surpass.objectives.bellman import sarsa, td
from surpass.objectives.value import clone
from surpass.policies.acting import sampled
from surpass.policies.closed_form import shifted
from surpass.policies.gaussian import mixture
from surpass.registry import system

__all__ = ["cfpi"]


@system("cfpi")
def cfpi(
    log_tau: float = 0.5, components: int = 4, pessimism: float = 1.0, gamma: float = 0.99,
    lr: float = 3e-4, batch: int = 256, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """mu + sqrt(2 log_tau) Sigma g / sqrt(g' Sigma g), g the gradient of the behavior's Q."""
    return Learner(
        nets={
            "q": critic(2, hidden),
            "pi": mixture(components, hidden),
            "q_target": ema("q", 0.005),
        },
        update=(
            train("q", td(sarsa(), gamma), adam(lr)),
            train("pi", clone(), adam(lr)),
        ),
        act=shifted(log_tau, pessimism),
        explore=sampled(),
        source=log(batch, normalize=True, gamma=gamma),
        discrete=False,
    )
