"""Learning a table of action values step by step with eligibility traces, many runs at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surpass.objectives.traces import Rule, Trail
from surpass.tasks.tabular import TabularMDP, draw

__all__ = ["Followed", "Learned", "Visits", "backward_view", "epsilon_greedy_rows", "fixed"]

Followed = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From the values [n, A] of states as they were when the episode began, the states [n], and the
number of the episode [n]: what acts and what is learned about, mu and pi, [n, A] each."""


class Learned(NamedTuple):
    """The tables of all runs, and what was watched of them at each mark."""

    q: Float[Tensor, "n S A"]
    watched: Float[Tensor, "n K"]


def epsilon_greedy_rows(
    q: Float[Tensor, "... A"], epsilon: float | Float[Tensor, "... 1"]
) -> Float[Tensor, "... A"]:
    """The best action with probability 1 - epsilon (ties share it), else any."""
    best = (q == q.amax(-1, keepdim=True)).to(q.dtype)
    return epsilon / q.shape[-1] + (1.0 - epsilon) * best / best.sum(-1, keepdim=True)


def fixed(mu: Float[Tensor, "S A"], pi: Float[Tensor, "S A"]) -> Followed:
    """The same two policies throughout: prediction."""
    return lambda rows, s, episode: (mu[s].to(rows.dtype), pi[s].to(rows.dtype))


class Visits:
    """The earlier decisions of each run's episode and their traces, in a ring of the last `window`:
    what is older has weight gamma^window at most, and is let go."""

    def __init__(self, n: int, window: int, gamma: float, dtype: torch.dtype) -> None:
        self.gamma, self.window, self.steps = gamma, window, 0
        self.held = torch.ones(n, window, dtype=dtype)
        self.age = torch.zeros(n, window, dtype=dtype)
        self.discount = torch.zeros(n, window, dtype=dtype)  # gamma^age, 0 where there is none
        self.weight = torch.zeros(n, window, dtype=dtype)
        self.pair = torch.zeros(n, window, dtype=torch.long)

    def step(self, rule: Rule, pair: Int[Tensor, "n"], ratio: Float[Tensor, "n"]) -> None:
        """Multiply the traces of all earlier decisions by the ratio of this one, then append it:
        its own ratio never touches its own trace."""
        self.age += 1
        self.discount *= self.gamma
        self.held, beta = rule(Trail(self.held, ratio[:, None], self.age))
        self.weight = self.discount * beta
        at = self.steps % self.window
        self.pair[:, at], self.age[:, at] = pair, 0.0
        self.held[:, at] = self.discount[:, at] = self.weight[:, at] = 1.0
        self.steps += 1

    def end(self, over: Tensor) -> None:
        """Forget the decisions of the runs whose episode is over, [n]."""
        self.discount *= (~over)[:, None]


@torch.no_grad()
def backward_view(
    mdp: TabularMDP,
    rule: Rule,
    follow: Followed,
    start: Float[Tensor, "n S A"],
    alpha: float | Tensor,
    steps: int,
    *,
    watch: Callable[[Tensor], Tensor] | None = None,
    every: int = 100,
    window: int = 64,
    generator: torch.Generator | None = None,
) -> Learned:
    """At every step, for all decisions (s_k, a_k) of the episode so far,

        Q(s_k, a_k) += alpha gamma^(t - k) beta_{k,t} delta_t,
        delta_t = r + gamma sum_a pi(a|s') Q(s', a) - Q(s, a).

    The policies of `follow` are those of the table as it was when the episode began. Episodes that
    terminate start anew from d0.

    Args:
        rule: of the traces; its numbers may be tensors [n, 1]. alpha: one number or [n].
        start: the tables before the first step, one for each run; not changed.
        watch: from the tables [n, S, A] a number per run, taken after every `every` steps.
        generator: of actions and next states: all runs draw their own.
    """
    n, S, A = start.shape
    q, kept = start.clone(), start.clone()
    runs, dtype = torch.arange(n), start.dtype
    visits = Visits(n, window, mdp.gamma, dtype)
    rate = torch.as_tensor(alpha, dtype=dtype).expand(n)[:, None]
    s = draw(mdp.d0.expand(n, -1), generator)
    episode, marks = torch.zeros(n, dtype=torch.long), []
    for t in range(steps):
        mu, pi = follow(kept[runs, s], s, episode)
        a = draw(mu, generator)
        ratio = (pi / mu)[runs, a]
        after = draw(mdp.P[s, a], generator)
        over = mdp.terminal_states[after]
        _, ahead = follow(kept[runs, after], after, episode)
        future = torch.where(over, 0.0, (ahead * q[runs, after]).sum(-1))
        delta = mdp.r[s, a].to(dtype) + mdp.gamma * future - q[runs, s, a]
        visits.step(rule, s * A + a, ratio)
        at = runs[:, None] * (S * A) + visits.pair
        change = rate * visits.weight * delta[:, None]
        q.view(-1).index_add_(0, at.view(-1), change.view(-1))
        visits.end(over)
        kept[over] = q[over]
        episode += over
        s = torch.where(over, draw(mdp.d0.expand(n, -1), generator), after)
        if watch is not None and t % every == every - 1:
            marks.append(watch(q))
    seen = torch.stack(marks, 1) if marks else torch.zeros(n, 0)
    return Learned(q, seen)
