"""Cold-RL: which of the least recently used objects a web cache evicts, learned offline from its
access log.

Cold-RL: Learning Cache Eviction with Offline Reinforcement Learning for NGINX. Features, net, wire
protocol and the kind of workload follow the paper and its code; training is a reconstruction, since
what the code benchmarks is a rule written by hand, not a trained net. Two things are changed on
purpose, both in the log (`surpass.tasks.cache_replay.replayed`): the reward charges an eviction for
the miss that it causes, where +1 for each candidate that stays pays more the more often the cache
is forced to evict; and gamma discounts time, not evictions, since many small victims pass in the
time of one large. Dropout is left out.
"""

from __future__ import annotations

from typing import Any

from surpass.critics.candidates import per_candidate, per_place
from surpass.forms import Learner, Prioritized, adam, ema, log, train
from surpass.objectives.bellman import td, td_error
from surpass.objectives.greedy import best_action
from surpass.objectives.listed import absent_as_nan, every_candidate, over_elapsed
from surpass.parts import linear
from surpass.policies.acting import greedy
from surpass.registry import system

__all__ = ["cold_rl", "cold_rl_hindsight", "cold_rl_shared"]


def _offline_dqn(
    net: Any, gamma: float, lr: float, tau: float, batch: int, alpha: float, beta: float,
    steps: int, every: int, hindsight: bool = False,
) -> Learner:  # fmt: skip
    backup = best_action(double=True)
    rule = Prioritized(td_error(backup, gamma), alpha, linear(beta, 1.0, steps=steps), every)
    loss = every_candidate(backup, gamma) if hindsight else td(backup, gamma, huber=1.0)
    return Learner(
        nets={"q": net, "q_target": ema("q", tau)},
        prepare=(absent_as_nan(), over_elapsed()),
        update=(train("q", loss, adam(lr, max_norm=1.0)),),
        act=greedy(),
        source=log(batch, normalize=True, listed=True, prioritize=rule),
        discrete=True,
    )


@system("cold-rl")
def cold_rl(
    gamma: float = 0.97, lr: float = 3e-4, tau: float = 0.005, batch: int = 128,
    alpha: float = 0.6, beta: float = 0.4, steps: int = 20_000, every: int = 1_000,
    hidden: tuple[int, ...] = (256, 256), head: int = 128,
) -> Learner:  # fmt: skip
    """min E[Huber(r + gamma^elapsed Q_target(s', argmax_i Q(s', i)) - Q(s, i))], Q dueling over the
    k candidates."""
    net = per_place(1, hidden, head)
    return _offline_dqn(net, gamma, lr, tau, batch, alpha, beta, steps, every)


@system("cold-rl:shared")
def cold_rl_shared(
    gamma: float = 0.97, lr: float = 3e-4, tau: float = 0.005, batch: int = 128,
    alpha: float = 0.6, beta: float = 0.4, steps: int = 20_000, every: int = 1_000,
    hidden: tuple[int, ...] = (64,), head: int = 64,
) -> Learner:  # fmt: skip
    """The same with one net for every candidate, so that its place in the list cannot matter."""
    net = per_candidate(1, hidden, head)
    return _offline_dqn(net, gamma, lr, tau, batch, alpha, beta, steps, every)


@system("cold-rl:hindsight")
def cold_rl_hindsight(
    gamma: float = 0.97, lr: float = 3e-4, tau: float = 0.005, batch: int = 128,
    alpha: float = 0.6, beta: float = 0.4, steps: int = 20_000, every: int = 1_000,
    hidden: tuple[int, ...] = (64,), head: int = 64,
) -> Learner:  # fmt: skip
    """The same, fitted to what each candidate would have earned, which a replay knows of all."""
    net = per_candidate(1, hidden, head)
    return _offline_dqn(net, gamma, lr, tau, batch, alpha, beta, steps, every, hindsight=True)
