"""EDP: any critic improves a diffusion policy by one pass of its net instead of the whole chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.critics.ensembles import critic
from surpass.forms import Learner, Train, adam, ema, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.bellman import expected, max_backup, td
from surpass.objectives.one_pass import climbing, one_pass, over_estimate, regressing
from surpass.objectives.weights import exponential, over_value
from surpass.policies.acting import sampled
from surpass.policies.diffusion import diffusion
from surpass.policies.selecting import softmax_of
from surpass.registry import system

__all__ = ["edp", "edp_crr", "edp_iql"]

Hidden = tuple[int, ...]


@system("edp")
def edp(
    alpha: float = 2.0, weight: float = 1.0, n: int = 50, levels: int = 100, fast: int = 15,
    best: int = 1, gamma: float = 0.99, lr: float = 3e-4, tau: float = 0.005, width: int = 256,
    hidden: Hidden = (256, 256, 256), batch: int = 256,
) -> Learner:  # fmt: skip
    """|eps - eps_theta|^2 - alpha Q(s, a^) / mean |Q|, a^ what one pass makes of a noisy logged
    action (TD3's improvement); a' in the critic's target by `fast` steps of a solver, the best of
    `best` draws. The solver is DPM-Solver++ of order 2, where the release takes order 3."""
    backup = expected(pi="pi_target") if best == 1 else max_backup(best, pi="pi_target")
    return Learner(
        nets={
            "q": critic(2, hidden), "q_target": ema("q", tau),
            "pi": diffusion(levels, width, schedule="linear", fast=fast),
            "pi_target": ema("pi", tau, every=5),
        },
        update=(
            train("q", td(backup, gamma), adam(lr)),
            train("pi", one_pass(climbing(alpha), weight), adam(lr)),
        ),
        act=softmax_of(n),
        explore=sampled(),
        source=log(batch, gamma=gamma),
        discrete=False,
    )  # fmt: skip


@system("edp:crr")
def edp_crr(
    beta: float = 1.0, cap: float = 20.0, samples: int = 10, weight: float = 1.0, n: int = 50,
    levels: int = 100, fast: int = 15, best: int = 1, gamma: float = 0.99, lr: float = 3e-4,
    tau: float = 0.005, width: int = 256, hidden: Hidden = (256, 256, 256), batch: int = 256,
) -> Learner:  # fmt: skip
    """|eps - eps_theta|^2 - min(exp(A / beta), cap) log N(a; a^, I), A over `samples` draws from
    N(a^, I)."""
    base = edp(0.0, weight, n, levels, fast, best, gamma, lr, tau, width, hidden, batch)
    guide = regressing(exponential(over_estimate(samples), 1.0 / beta, cap))
    return replace(base, update=(base.update[0], _toward(guide, weight, lr)))


@system("edp:iql")
def edp_iql(
    expectile: float = 0.7, temperature: float = 3.0, cap: float = 100.0, weight: float = 1.0,
    n: int = 50, levels: int = 100, fast: int = 15, gamma: float = 0.99, lr: float = 3e-4,
    tau: float = 0.005, width: int = 256, hidden: Hidden = (256, 256, 256), batch: int = 256,
) -> Learner:  # fmt: skip
    """|eps - eps_theta|^2 - min(exp(temperature (Q - V)), cap) log N(a; a^, I), with the critic of
    IQL."""
    base = edp(0.0, weight, n, levels, fast, 1, gamma, lr, tau, width, hidden, batch)
    guide = regressing(exponential(over_value("q_target"), temperature, cap))
    steps = (*implicit_steps(expectile, gamma, lr), _toward(guide, weight, lr))
    nets = {**implicit_nets(hidden, tau), "pi": base.nets["pi"]}
    return replace(base, nets=nets, update=steps)


def _toward(guide: Any, weight: float, lr: float) -> Train:
    return train("pi", one_pass(guide, weight), adam(lr))
