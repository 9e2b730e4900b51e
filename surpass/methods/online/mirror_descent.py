"""MDPO: every policy is the last one, tilted by what it was worth, as far as several gradient steps
on the value and the divergence from the last one come."""

from __future__ import annotations

from surpass.critics.ensembles import critic, value
from surpass.critics.state_values import bootstrapped, state_values
from surpass.errors import InputError
from surpass.forms import Adam, Learner, PolicyGradient, adam, copy, ema, replay, rollouts, train
from surpass.objectives.advantage import gae, value_loss, whitened
from surpass.objectives.bellman import state_value, td
from surpass.objectives.divergence import anchor_kl
from surpass.objectives.mirror_descent import mirror_ascent, small_outputs
from surpass.objectives.trust import ratio_loss
from surpass.objectives.value import soft_value
from surpass.parts import Number, linear
from surpass.policies.acting import mean, sampled
from surpass.policies.gaussian import gaussian
from surpass.policies.stochastic import stochastic
from surpass.registry import system

__all__ = ["mdpo", "mdpo_off_policy"]

Hidden = tuple[int, ...]


def _checked(step: float, m: int) -> None:
    if step <= 0:
        raise InputError(f"step={step:g}: the step size of mirror descent is positive")
    if m < 1:
        raise InputError(f"m={m}: an iteration takes at least one gradient step")


@system("mdpo")
def mdpo(
    step: float = 1.0, m: int = 10, anneal: int | None = 1_000_000, lam: float = 0.95,
    gamma: float = 0.99, lr: float = 3e-4, value_lr: float | None = None, envs: int = 8,
    horizon: int = 256, minibatches: int = 1, normalize: bool = True, hidden: Hidden = (64, 64),
) -> PolicyGradient:  # fmt: skip
    """max E[r A] - KL(pi || pi_k) / t_k by m gradient steps from pi_k, which collected the batch;
    no clip and no line search.

    t_k falls from `step` in a straight line, and the learning rates with it, over `anneal`
    environment steps; None holds them. m = 1 is the plain policy gradient, since the divergence has
    no slope at pi_k. The value net takes the same m steps, at its own rate where one is given.
    """
    _checked(step, m)
    batches = None if anneal is None else anneal // (envs * horizon)
    if batches == 0:
        raise InputError(
            f"anneal={anneal}: one batch alone is envs x horizon = {envs * horizon} steps; anneal "
            "over more, or None, which holds the step size"
        )
    updates = m * minibatches

    def falling(start: float) -> Number:
        if batches is None:
            return start
        return linear(start, start / batches, steps=(batches - 1) * updates, after=updates - 1,
                      every=updates)  # fmt: skip

    def optimizer(rate: float) -> Adam:
        return adam(falling(rate), eps=1e-5, max_norm=0.5)

    return PolicyGradient(
        whitened(gae(gamma, lam)),
        ratio_loss() + anchor_kl(falling(step)),  # type: ignore[arg-type]
        signals=(bootstrapped(),),
        nets={"policy": stochastic(hidden), "value": state_values(hidden)},
        also=(train("value", value_loss(), optimizer(value_lr or lr)),),
        source=rollouts(envs, horizon, continuing=True, pieces="decisions", gamma=gamma,
                        normalize=normalize, scale_reward=normalize),
        optimizer=optimizer(lr), epochs=m, minibatches=minibatches,
    )  # fmt: skip


@system("mdpo:off-policy")
def mdpo_off_policy(
    step: float = 1.0, m: int = 1_000, lam: float = 0.2, small: float = 1e-3,
    gamma: float = 0.99, tau: float = 0.005, lr: float = 3e-4, batch: int = 256,
    warm: int = 10_000, per_step: float = 1.0, envs: int = 1, hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """max E[Q - lam log pi_k] - KL(pi || pi_k) / step on states of the replay, pi_k renewed at
    every m-th update.

    The critics are those of the first SAC, with a net for V. With step = 1 / lam the policy moves
    as SAC's does at the temperature lam, and with m = 1 on average over the actions it draws.
    """
    _checked(step, m)
    actor = mirror_ascent(step, lam)
    return Learner(
        nets={
            "pi": gaussian(hidden), "pi_old": copy("pi", every=m), "q": critic(2, hidden),
            "v": value(1, hidden), "v_target": ema("v", tau),
        },
        update=(
            train("pi", actor + small * small_outputs() if small else actor, adam(lr)),
            train("q", td(state_value("v_target"), gamma), adam(lr)),
            train("v", soft_value(lam), adam(lr)),
        ),
        act=mean(),
        explore=sampled(),
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
        discrete=False,
    )  # fmt: skip
