"""CSVE: pessimism on values of states, where a learned model says that the policy leads."""

from __future__ import annotations

from typing import Any

from surpass.critics.dynamics import dynamics
from surpass.critics.ensembles import critic, dual, value
from surpass.forms import Learner, Stage, Stages, adam, ema, log, train
from surpass.objectives.bellman import state_value, td
from surpass.objectives.conservative_values import conservative_value, reached, value_gap
from surpass.objectives.model_values import change_likelihood
from surpass.objectives.value import clone
from surpass.objectives.weights import exponential, over_value
from surpass.parts import stop
from surpass.policies.acting import mean, none, sampled
from surpass.policies.gaussian import gaussian
from surpass.registry import system

__all__ = ["csve"]

Hidden = tuple[int, ...]


@system("csve")
def csve(
    alpha: float = 10.0, alpha_lr: float = 1e-4, weight: float = 5.0, threshold: float = 10.0,
    temperature: float = 3.0, bonus: float = 1.0, gamma: float = 0.99, polyak: float = 0.005,
    lr: float = 3e-4, scale: float | str = 1.0, models: int = 5, model_lr: float = 1e-3,
    batch: int = 256, model: int = 100_000, offline: int = 1_000_000, hidden: Hidden = (256, 256),
    model_hidden: Hidden = (200, 200),
) -> Stages:  # fmt: skip
    """V toward Q of the policy's actions, and alpha (weight (V(s~) - V(s')) - threshold) down, s~
    where a model says that the policy leads; Q toward r + gamma V(s'); the policy by weighted
    cloning plus bonus E[V(s~)] through the model.

    alpha starts at `alpha` and is learned, or stays there where `alpha_lr` is 0; with both 0 it is
    the same algorithm without pessimism. `threshold` is in units of values: `scale` multiplies
    rewards ("range" takes a step's to about 1). The model is an ensemble without the spectral norm
    and the random masks of rows of the official code.
    """
    pessimism: dict[str, Any] = {"weight": weight, "threshold": threshold}
    source = log(batch, normalize=True, gamma=gamma, reward_scale=scale)
    fitted = Learner(
        {"model": dynamics(models, model_hidden)},
        (train("model", change_likelihood(), adam(model_lr)),), none(), source, discrete=False,
    )  # fmt: skip
    advantage = exponential(over_value("q_target"), temperature, 100.0)
    dual_step = (train("alpha", value_gap(**pessimism), adam(alpha_lr)),) if alpha_lr else ()
    cautious = Learner(
        nets={
            "v": value(1, hidden), "q": critic(2, hidden), "alpha": dual(max(alpha, 1e-8)),
            "pi": gaussian(hidden, squashed=False), "q_target": ema("q", polyak),
        },
        update=(
            *dual_step,
            train("v", conservative_value(**pessimism), adam(lr)),
            train("q", td(state_value(), gamma), adam(lr)),
            train("pi", stop(advantage) * clone() + bonus * reached(), adam(lr)),
        ),
        act=mean(),
        explore=sampled(),
        source=source,
        discrete=False,
    )  # fmt: skip
    return Stages((Stage(fitted, model), Stage(cautious, offline)))
