"""SAC on a log, made pessimistic: by a penalty (CQL, Cal-QL, C-CQL) or by many critics (SAC-N,
EDAC)."""

from __future__ import annotations

from typing import Any

from surpass.critics.dynamics import inverse_dynamics
from surpass.forms import Learner, Stage, Stages, adam, log, mix, replay, train
from surpass.methods.actor_critic import offline_then_online, soft_actor_critic
from surpass.objectives.bellman import apart, conservative, logged_return, max_backup, soft, td
from surpass.objectives.inverse_dynamics import contextual, inferred
from surpass.policies.acting import none
from surpass.registry import system

__all__ = ["c_cql", "cal_ql", "cql", "edac", "sac_n"]


def _penalized(
    alpha: float, samples: int, backup: Any, floor: Any, gamma: float, batch: int
) -> Learner:
    return soft_actor_critic(
        td(backup, gamma) + alpha * conservative(samples, floor=floor),
        gamma=gamma,
        actor_lr=1e-4,
        source=log(batch, gamma=gamma),
    )


@system("cql")
def cql(alpha: float = 5.0, samples: int = 10, gamma: float = 0.99, batch: int = 256) -> Learner:
    """min E[(Q - y)^2] + alpha E[logsumexp_a Q(s, a) - Q(s, a_log)], y without entropy."""
    return _penalized(alpha, samples, soft(entropy=False), None, gamma, batch)


@system("cal-ql")
def cal_ql(
    alpha: float = 5.0, samples: int = 10, gamma: float = 0.99, batch: int = 256,
    offline: int = 1_000_000, online: int = 250_000, warm: int = 5_000,
) -> Stages:  # fmt: skip
    """CQL whose pushed-down values are floored at the logged return; then online on both, after
    `warm` steps of its policy."""
    learner = _penalized(alpha, samples, max_backup(samples), logged_return(), gamma, batch)
    half = batch // 2
    own = replay(batch - half, warm=warm, warm_with="policy", gamma=gamma)
    return offline_then_online(
        learner, offline=offline, online=online,
        source=mix(batch, log=(0.5, log(half, gamma=gamma)), replay=(0.5, own)),
    )  # fmt: skip


@system("c-cql")
def c_cql(
    alpha: float = 5.0, sigma: float = 0.05, samples: int = 10, gamma: float = 0.99,
    lr: float = 3e-4, actor_lr: float = 1e-4, inverse_lr: float = 3e-4, batch: int = 256,
    inverse: int = 50_000, offline: int = 1_000_000, hidden: tuple[int, ...] = (256, 256),
) -> Stages:  # fmt: skip
    """CQL whose penalty is taken at states that noise has shaken: down for all actions there, up
    for those that, by inverse dynamics of the log, would lead back to where the log went next.

    A reconstruction: there are no public formulas. It is CQL with the penalty's states and raised
    actions replaced, which is what the abstract says; sigma is in standard units.
    """
    source = log(batch, normalize=True, gamma=gamma)
    fitted = Learner(
        {"inverse": inverse_dynamics(hidden)}, (train("inverse", inferred(), adam(inverse_lr)),),
        none(), source, discrete=False,
    )  # fmt: skip
    penalty = contextual(conservative(samples), sigma)
    learner = soft_actor_critic(
        td(soft(entropy=False), gamma) + alpha * penalty, gamma=gamma, lr=lr, actor_lr=actor_lr,
        hidden=hidden, source=source,
    )  # fmt: skip
    return Stages((Stage(fitted, inverse), Stage(learner, offline)))


@system("sac-n")
def sac_n(n: int = 10, gamma: float = 0.99, lr: float = 3e-4, batch: int = 256) -> Learner:
    """SAC with y = r + gamma (min over n critics of Q(s', a') - alpha log pi)."""
    return soft_actor_critic(n=n, gamma=gamma, lr=lr, source=log(batch, gamma=gamma))


@system("edac")
def edac(
    n: int = 10, eta: float = 1.0, gamma: float = 0.99, lr: float = 3e-4, batch: int = 256
) -> Learner:
    """SAC-N + eta / (n - 1) sum over pairs of the cosine between the critics' action gradients."""
    return soft_actor_critic(
        td(soft(), gamma) + eta * apart(), n=n, gamma=gamma, lr=lr, source=log(batch, gamma=gamma)
    )
