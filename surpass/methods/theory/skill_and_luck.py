"""Off-policy learning over many steps without importance ratios: skill and luck are told apart."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from surpass.critics.ensembles import critic, value
from surpass.critics.latent_outcomes import latent_luck, latent_outcomes
from surpass.errors import InputError
from surpass.forms import Learner, Planner, adam, ema, log, train
from surpass.objectives.skill_and_luck import (
    Paths,
    Split,
    decomposed_return,
    outcome_bound,
    skill_ascent,
    split_by_regression,
)
from surpass.parts import part
from surpass.policies.acting import mean, sampled
from surpass.policies.discrete import categorical
from surpass.registry import system

__all__ = ["off_policy_dae", "off_policy_dae_table", "regression"]


@part
def regression(
    paths: Paths, /, pi: Tensor, gamma: float = 0.99, chances: Any = None, skilled: bool = True
) -> Split:
    """The least-squares fit of V, A and B; see `split_by_regression`."""
    return split_by_regression(paths, pi, gamma, chances, skilled=skilled)


@system("off-policy-dae")
def off_policy_dae(
    n: int = 8, k: int = 16, beta: float = 0.1, gamma: float = 0.99, lucky: bool = True,
    spread: float = 0.1, polyak: float = 0.005, slow: float = 0.005, lr: float = 3e-4,
    batch: int = 64, hidden: tuple[int, ...] = (256, 256),
) -> Learner:  # fmt: skip
    """One regression of logged paths on V + skill + luck; the policy climbs its skill, held near
    its own moving average by beta KL. For discrete actions.

    The actor's step and the size of beta are reconstructed: no code of the off-policy form is
    public.

    Args:
        n: steps of a path. k: categories of outcomes. spread: standard deviation of an outcome
            within one, in units of observations. lucky: False is DAE, which takes luck for skill
            off-policy. polyak, slow: rates of the copies of V and of the policy.

    Raises:
        InputError: when n or k is below 1.
    """
    if n < 1 or k < 1:
        raise InputError(f"paths have at least one step and luck one category, got {n} and {k}")
    world = (train("outcomes", outcome_bound(), adam(lr)),) if lucky else ()
    nets: dict[str, Any] = {
        "v": value(1, hidden), "v_target": ema("v", polyak), "advantage": critic(1, hidden),
        "pi": categorical(hidden), "pi_slow": ema("pi", slow),
    }  # fmt: skip
    if lucky:
        nets |= {"outcomes": latent_outcomes(k, hidden, spread), "luck": latent_luck(k, hidden)}
    fitted = ("v", "advantage", "luck") if lucky else ("v", "advantage")
    return Learner(
        nets=nets,
        update=(
            *world,
            train(fitted, decomposed_return(gamma, lucky), adam(lr)),
            train("pi", skill_ascent(beta), adam(lr)),
        ),
        act=mean("pi"), explore=sampled("pi"), source=log(batch, "segments", n=n), discrete=True,
    )  # fmt: skip


@system("off-policy-dae:table")
def off_policy_dae_table(
    pi: Tensor, gamma: float = 0.99, chances: Any = None, skilled: bool = True
) -> Planner:
    """What a fixed policy is worth, from a table's paths: `solve` takes `Paths` of any behavior.

    Args:
        pi: the policy, [S, A]. chances: p(s'|s, a), known or estimated, which centers luck; None is
            DAE. skilled: False, without chances, is the plain n-step return.
    """
    return Planner(regression(pi, gamma, chances, skilled))
