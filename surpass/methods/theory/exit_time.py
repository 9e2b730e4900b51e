"""Policy gradients where the control decides when it is over."""

from __future__ import annotations

from surpass.critics.state_values import bootstrapped, state_values
from surpass.forms import PolicyGradient, adam, rollouts, train
from surpass.objectives.advantage import batch_centered, gae, value_loss
from surpass.objectives.reduce import sum_over
from surpass.objectives.trust import ratio_loss
from surpass.parts import Number
from surpass.policies.stochastic import stochastic
from surpass.registry import system

__all__ = ["exit_time_actor_critic", "exit_time_pg"]

Hidden = tuple[int, ...]


@system("exit-time-pg")
def exit_time_pg(
    gamma: float = 1.0, lr: Number = 1e-3, log_std: float = 0.0, paths: int = 2000,
    horizon: int = 400, hidden: Hidden = (32, 32),
) -> PolicyGradient:  # fmt: skip
    """E[sum_{i<tau} grad log rho(a_i|X_i) (reward to go - mean return)]: right although tau depends
    on the policy, because the policy is randomized.

    The step is that of REINFORCE. What matters stands in the task: the reward at the exit, and
    that exits between two steps are seen (`surpass.tasks.exit_time`). A gradient through the path
    itself would leave out how tau moves.

    Args:
        log_std: of the start; the spread is learned. paths: in a batch. horizon: at most so many
            steps of one, masked behind its exit.
    """
    return PolicyGradient(
        batch_centered(gamma), ratio_loss(), reduce=sum_over(),
        nets={"policy": stochastic(hidden, log_std)}, source=rollouts(paths, horizon),
        optimizer=adam(lr),
    )  # fmt: skip


@system("exit-time-pg:actor-critic")
def exit_time_actor_critic(
    gamma: float = 1.0, lam: float = 1.0, lr: Number = 1e-3, critic_lr: Number = 3e-3,
    log_std: float = 0.0, paths: int = 2000, horizon: int = 400, hidden: Hidden = (32, 32),
) -> PolicyGradient:  # fmt: skip
    """The same with a value as baseline, fitted to what was earned from each step on; at the exit
    it is the reward paid there, exactly. `lam` 0 is the one-step error of the online scheme."""
    return PolicyGradient(
        gae(gamma, lam), ratio_loss(), reduce=sum_over(), signals=(bootstrapped(),),
        nets={"policy": stochastic(hidden, log_std), "value": state_values(hidden)},
        also=(train("value", value_loss(), adam(critic_lr)),),
        source=rollouts(paths, horizon), optimizer=adam(lr),
    )  # fmt: skip
