"""SRPO: one pass of a plain net acts; a diffusion model of the behavior only says where it is
dense."""

from __future__ import annotations

from dataclasses import replace

from surpass.forms import Learner, Stage, Stages, adam, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.score_regularized import score_regularized
from surpass.objectives.value import clone
from surpass.parts import cosine
from surpass.policies.acting import mean, sampled
from surpass.policies.deterministic import deterministic
from surpass.policies.diffusion import diffusion
from surpass.registry import system

__all__ = ["srpo"]


@system("srpo")
def srpo(
    beta: float = 0.1, omega: str = "variance", centered: bool = True, unit: bool = False,
    tau: float = 0.7, levels: int = 1_000, gamma: float = 0.99, lr: float = 3e-4,
    width: int = 256, hidden: tuple[int, ...] = (256, 256), batch: int = 256,
    pretrain: int = 1_500_000, steps: int = 1_000_000,
) -> Stages:  # fmt: skip
    """max E[beta Q(s, pi(s))] - E_t[w(t) KL(pi_t || mu_t)], after IQL's critic and a diffusion
    model mu of the log (1,000 levels stand for continuous time) have been trained.

    `centered` subtracts the noise that was added, as the paper does; the release leaves it out.
    `unit` is for mazes, where slopes of the critic differ in size.
    """
    judge = Learner(
        nets={**implicit_nets(hidden), "mu": diffusion(levels, width, schedule="vp-20")},
        update=(
            *implicit_steps(tau, gamma, lr),
            train("mu", clone("mu"), adam(lr, weight_decay=0.01)),
        ),
        act=sampled("mu"),
        source=log(batch, gamma=gamma),
        discrete=False,
    )
    climb = train(
        "pi", score_regularized(beta, omega, centered=centered, unit=unit),
        adam(cosine(lr, 0.0, steps=steps)),
    )  # fmt: skip
    policy = replace(judge, nets={"pi": deterministic(hidden)}, update=(climb,), act=mean())
    return Stages((Stage(judge, pretrain), Stage(policy, steps)))
