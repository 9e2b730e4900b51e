"""IDQL: imitate with a diffusion model; when it acts, choose among its samples by the critic."""

from __future__ import annotations

from surpass.forms import Learner, adam, ema, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.value import clone
from surpass.policies.acting import best_of, sampled
from surpass.policies.diffusion import diffusion
from surpass.policies.selecting import expectile_weight, reweighted
from surpass.registry import system

__all__ = ["idql"]


@system("idql")
def idql(
    tau: float = 0.7, n: int = 64, steps: int = 5, implicit: bool = False, gamma: float = 0.99,
    lr: float = 3e-4, polyak: float = 0.005, smooth: float = 0.001, width: int = 256,
    hidden: tuple[int, ...] = (256, 256), batch: int = 256,
) -> Learner:  # fmt: skip
    """argmax_i Q(s, a_i), a_1..n ~ mu(.|s) by diffusion; or a_i in proportion to |tau - 1(Q < V)|
    (`implicit`)."""
    best = best_of("pi_ema", "q_target", n)
    weighed = reweighted(expectile_weight(tau), n, "pi_ema")
    return Learner(
        nets={
            **implicit_nets(hidden, polyak),
            "pi": diffusion(steps, width),
            "pi_ema": ema("pi", smooth),
        },
        update=(*implicit_steps(tau, gamma, lr), train("pi", clone(), adam(lr))),
        act=weighed if implicit else best,
        explore=sampled("pi_ema"),
        source=log(batch, gamma=gamma),
        discrete=False,
    )
