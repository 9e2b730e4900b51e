"""FISOR: hard constraints from a log; feasibility, reward and policy learned apart."""

from __future__ import annotations

from surpass.critics.ensembles import critic, value
from surpass.forms import Learner, adam, ema, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.reachability import feasible, least_violation, reach
from surpass.objectives.value import clone
from surpass.objectives.weights import over_value
from surpass.parts import stop
from surpass.policies.acting import best_of
from surpass.policies.diffusion import diffusion
from surpass.registry import system

__all__ = ["fisor"]


@system("fisor")
def fisor(
    tau: float = 0.9, n: int = 16, steps: int = 5, reward: float = 3.0, risk: float = 5.0,
    unsafe: float = 25.0, gamma: float = 0.99, lr: float = 3e-4, polyak: float = 0.005,
    smooth: float = 0.001, width: int = 256, hidden: tuple[int, ...] = (256, 256),
    batch: int = 256, reward_scale: float | str = "range",
) -> Learner:  # fmt: skip
    """Clone by diffusion what is good among the safe, or the least unsafe; act by the lowest Q_h
    of n samples. A step that cost anything counts as `unsafe`, any other as -1; rewards are
    scaled so that the returns of the log have the range of its longest episode's length, which is
    1,000 in the paper's tasks."""
    weight = feasible(over_value("q_target"), reward, risk)
    return Learner(
        nets={
            **implicit_nets(hidden, polyak),
            "v_h": value(1, hidden),
            "q_h": critic(2, hidden),
            "q_h_target": ema("q_h", polyak),
            "pi": diffusion(steps, width),
            "pi_ema": ema("pi", smooth),
        },
        update=(
            train("v_h", least_violation(tau), adam(lr)),
            train("q_h", reach(gamma, unsafe=unsafe), adam(lr)),
            *implicit_steps(tau, gamma, lr),
            train("pi", stop(weight) * clone(), adam(lr)),
        ),
        act=best_of("pi_ema", "q_h_target", n, over="max", lowest=True),
        source=log(batch, gamma=gamma, reward_scale=reward_scale),
        discrete=False,
    )
