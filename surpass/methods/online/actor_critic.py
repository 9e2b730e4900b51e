"""Off-policy actor-critics that learn from replay: SAC, TD3, TQC; RLPD and WSRL start from a
log."""

from __future__ import annotations

from dataclasses import replace

from surpass.critics.ensembles import critic
from surpass.forms import Learner, Stage, Stages, log, mix, replay, train
from surpass.methods.actor_critic import soft_actor_critic, twin_delayed
from surpass.objectives.bellman import conservative, logged_return, subset_min, td
from surpass.objectives.greedy import truncated_atoms
from surpass.objectives.value import maximize
from surpass.registry import system

__all__ = ["rlpd", "sac", "td3", "tqc", "wsrl"]

Hidden = tuple[int, ...]


@system("sac")
def sac(
    gamma: float = 0.99, tau: float = 0.005, lr: float = 3e-4, batch: int = 256,
    warm: int = 1_000, per_step: float = 1.0, envs: int = 1, hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """max E[min Q(s, a) - alpha log pi(a|s)], alpha holding the entropy at -dim(a)."""
    return soft_actor_critic(
        gamma=gamma, tau=tau, lr=lr, hidden=hidden,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip


@system("td3")
def td3(
    gamma: float = 0.99, tau: float = 0.005, lr: float = 3e-4, batch: int = 256,
    warm: int = 5_000, per_step: float = 1.0, envs: int = 1, hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """Twin critics, smoothed targets, and a deterministic actor at every second update."""
    return twin_delayed(
        maximize(), gamma=gamma, tau=tau, lr=lr, hidden=hidden,
        source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip


@system("tqc")
def tqc(
    n: int = 5, quantiles: int = 25, drop: int = 2, gamma: float = 0.99, tau: float = 0.005,
    lr: float = 3e-4, batch: int = 256, warm: int = 1_000, per_step: float = 1.0, envs: int = 1,
    hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """SAC whose n quantile critics are pooled, without the `drop` n largest atoms, as target."""
    learner = soft_actor_critic(
        td(truncated_atoms(drop), gamma), n=n, gamma=gamma, tau=tau, lr=lr, hidden=hidden,
        over="mean", source=replay(batch, warm=warm, per_step=per_step, envs=envs),
    )  # fmt: skip
    quantile = critic(n, hidden, head="quantile", bins=quantiles)
    return replace(learner, nets={**learner.nets, "q": quantile})


def _ensemble(
    n: int, subset: int, per_step: int, gamma: float, entropy: bool, hidden: Hidden
) -> Learner:
    """SAC with n LayerNorm critics, the minimum over a random subset of their targets, and one
    actor update for `per_step` critic updates."""
    learner = soft_actor_critic(
        td(subset_min(subset, entropy), gamma), n=n, gamma=gamma, hidden=hidden, norm=True,
        over="mean",
    )  # fmt: skip
    critics, actor = learner.update
    return replace(learner, update=(critics, replace(actor, every=per_step)))


@system("rlpd")
def rlpd(
    n: int = 10, subset: int = 2, per_step: int = 20, gamma: float = 0.99, batch: int = 256,
    warm: int = 5_000, hidden: Hidden = (256, 256),
) -> Learner:  # fmt: skip
    """SAC from scratch, half of each batch from the log; LayerNorm, many critics, many updates."""
    learner = _ensemble(n, subset, per_step, gamma, True, hidden)
    half = batch // 2
    own = replay(batch - half, warm=warm, per_step=float(per_step))
    return replace(learner, source=mix(batch, log=(0.5, log(half)), replay=(0.5, own)))


@system("wsrl")
def wsrl(
    offline: int = 250_000, online: int = 250_000, warm: int = 5_000, n: int = 10, subset: int = 2,
    per_step: int = 4, alpha: float = 5.0, gamma: float = 0.99, batch: int = 256,
    hidden: Hidden = (256, 256),
) -> Stages:  # fmt: skip
    """Cal-QL on the log; then its policy fills an empty replay for `warm` steps, and plain
    ensemble SAC goes on from there without the log."""
    after = _ensemble(n, subset, per_step, gamma, False, hidden)
    pessimism = alpha * conservative(10, floor=logged_return())
    before = replace(
        after,
        update=(
            train("q", td(subset_min(subset, False), gamma) + pessimism),
            replace(after.update[1], every=1),
        ),
        source=log(batch, gamma=gamma),
    )
    fresh = replay(batch, warm=warm, per_step=float(per_step), warm_with="policy")
    return Stages((Stage(before, offline), Stage(replace(after, source=fresh), online)))
