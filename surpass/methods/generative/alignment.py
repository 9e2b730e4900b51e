"""EDA: a diffusion model of the behavior, aligned with a critic as language models are with
preferences."""

from __future__ import annotations

from surpass.errors import InputError
from surpass.forms import Learner, Stage, Stages, Transform, adam, copy, log, train
from surpass.methods.implicit_critic import implicit_nets, implicit_steps
from surpass.objectives.diffusion_alignment import aligned
from surpass.objectives.value import clone
from surpass.policies.acting import best_of, none, sampled
from surpass.policies.diffusion import energy_diffusion
from surpass.registry import system
from surpass.training.augmenting import supported

__all__ = ["eda"]


@system("eda")
def eda(
    alpha: float = 3.0, beta: float = 1.0, candidates: int = 16, n: int = 4, tau: float = 0.7,
    behavior: str = "log", levels: int = 1_000, fast: int = 15, gamma: float = 0.99,
    lr: float = 3e-4, align_lr: float = 5e-5, width: int = 256,
    hidden: tuple[int, ...] = (256, 256), batch: int = 256, pretrain: int = 1_000_000,
    judge: int = 1_000_000, steps: int = 20_000,
) -> Stages:  # fmt: skip
    """The behavior by diffusion without rewards, IQL's critic, and then
    -softmax_i(alpha Q(s, a^i)) log softmax_i(beta (f - f_mu)(a^i_t)) over `candidates` that the
    behavior drew of each state, f the net whose slope guesses the noise; acts by the best of `n`.

    `behavior` names the role of the log that is cloned, whose rewards are never read: hand in a
    large one beside a small `log` with rewards. 1,000 levels stand for continuous time, and nets
    are without the release's dropout.

    Raises:
        InputError: when there are fewer than two candidates.
    """
    if candidates < 2:
        raise InputError(
            f"{candidates} candidates of a state cannot be compared; take 2 or more (the paper's "
            "are 16)"
        )
    source, pi = log(batch, gamma=gamma), energy_diffusion(levels, width, fast=fast)
    cloned = Learner(
        {"pi": pi}, (train("pi", clone(), adam(lr)),), sampled(), log(batch, role=behavior),
        discrete=False,
    )  # fmt: skip
    judged = Learner(
        implicit_nets(hidden), implicit_steps(tau, gamma, lr), none(), source, discrete=False
    )
    better = Learner(
        nets={"pi": pi, "mu": copy("pi")},
        update=(train("pi", aligned(alpha, beta), adam(align_lr)),),
        act=best_of("pi", "q_target", n), explore=sampled(), source=source, discrete=False,
    )  # fmt: skip
    draw = Transform(supported(candidates), into="log")
    stages = (Stage(cloned, pretrain), Stage(judged, judge), Stage(draw), Stage(better, steps))
    return Stages(stages)
