"""Policy gradients as integrals over a Gaussian process: few trajectories, and how sure they
are."""

from __future__ import annotations

from surpass.errors import InputError
from surpass.forms import PolicyGradient, adam, rollouts
from surpass.objectives.advantage import recorded
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import ratio_loss
from surpass.parts import Number
from surpass.policies.score_vectors import bayesian_critic, bayesian_quadrature
from surpass.policies.stochastic import stochastic
from surpass.registry import system

__all__ = ["bayes_ac", "bayes_pg"]

Hidden = tuple[int, ...]


@system("bayes-pg")
def bayes_pg(
    model: int = 1, sigma: float = 0.3, gamma: float = 1.0, lr: Number = 1e-2, paths: int = 20,
    horizon: int = 200, hidden: Hidden = (), log_std: float = 0.0, draws: int = 8,
    tiny: float = 1e-3,
) -> PolicyGradient:  # fmt: skip
    """REINFORCE whose trajectories are weighted by what a Gaussian process says of the whole
    integral: U C b, not the mean of R u.

    For policies of few parameters, such as linear ones. What the gradient is, and its covariance,
    say the functions of `surpass.objectives.bayesian_gradient` for any scores.

    Args:
        model: 1, on R u, or 2, on R. sigma: of the noise, in units of the kernel (0.1 to 1).
        paths: trajectories of a batch, of up to `horizon` steps. hidden: layers of the policy, none
            by default. draws: of actions in each state for Fisher's matrix; tiny: what makes that
            regular.

    Raises:
        InputError: for another model, or a sigma that is not positive.
    """
    if model not in (1, 2) or sigma <= 0:
        raise InputError(f"model is 1 or 2 and sigma above 0, got {model} and {sigma}")
    return PolicyGradient(
        recorded(), ratio_loss(), reduce=sum_over(1.0),
        signals=(bayesian_quadrature(model, sigma, gamma, draws, tiny),),
        nets={"policy": stochastic(hidden, log_std)}, source=rollouts(paths, horizon),
        optimizer=adam(lr),
    )  # fmt: skip


@system("bayes-pg:actor-critic")
def bayes_ac(
    sigma: float = 0.3, gamma: float = 0.99, width: float = 1.0, state: float = 1.0,
    noise: str = "returns", lr: Number = 1e-2, paths: int = 5, horizon: int = 200,
    hidden: Hidden = (), log_std: float = 0.0, draws: int = 8, tiny: float = 1e-3,
) -> PolicyGradient:  # fmt: skip
    """The same with a Gaussian process on Q, from rewards or from what was earned from each
    decision on: decisions are weighted by alpha.

    Args:
        width, state: of the Gaussian kernel of states. noise: of "returns" or of "rewards".

    Raises:
        InputError: for another noise, or a sigma or width that is not positive.
    """
    if noise not in ("returns", "rewards") or sigma <= 0 or width <= 0:
        raise InputError(
            f"noise is of returns or of rewards, sigma and width are above 0; got {noise!r}, "
            f"{sigma} and {width}"
        )
    return PolicyGradient(
        recorded(), ratio_loss(), reduce=sum_over(1.0),
        signals=(bayesian_critic(sigma, gamma, width, state, noise, draws, tiny),),
        nets={"policy": stochastic(hidden, log_std)}, source=rollouts(paths, horizon),
        optimizer=adam(lr),
    )  # fmt: skip
