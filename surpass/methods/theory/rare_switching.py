"""An actor that follows an optimistic critic, which is renewed only when the data have doubled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from surpass.errors import InputError
from surpass.forms import Planner
from surpass.objectives.optimistic_critic import best_values, log_volume
from surpass.objectives.planning import known
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.linear_mdp import Counts

__all__ = ["Acting", "followed", "lsvi_ucb", "nora_actor_critic", "nora_frequent"]


class Acting(NamedTuple):
    """The policy [H, S, A], the softmax of `scores`, a sum of critics; the critic; the volume of
    the data [H] that it was fitted to; and how often it was fitted."""

    pi: Float[np.ndarray, "H S A"]
    scores: Float[np.ndarray, "H S A"]
    q: Float[np.ndarray, "H S A"]
    volume: Float[np.ndarray, "H"]
    fits: int


@part
def followed(
    seen: Counts, /, bonus: float = 0.1, eta: float | None = None, lam: float = 1.0,
    grow: float = 2.0, reset: bool = True, phi: Any = None, episodes: int = 3000,
) -> Acting:  # fmt: skip
    """What to do in the next episode, from what was done in the last, `seen.last`:

    1. where det Lambda_h has grown by the factor `grow` at some step (1: always), fit a new critic
       of the best values, with bonus H |phi|, and begin with the uniform policy again (`reset`);
    2. pi_h(a|s) <- pi_h(a|s) exp(eta Q_h(s, a)) / Z; greedy with an infinite eta, and with none
       (log A / episodes)^(1/2) / H, the rate of the analysis.

    Actor-Critics Can Achieve Optimal Sample Efficiency (2025).
    """
    H, _, A = seen.paid.shape
    old = seen.last if isinstance(seen.last, Acting) else None
    volume = log_volume(seen.n.sum(-1), phi, lam)
    if old is None or grow <= 1 or bool((volume >= old.volume + np.log(grow)).any()):
        q = best_values(seen, bonus * H, phi, lam)
        scores = np.zeros_like(q) if old is None or reset else old.scores
        fits = 1 if old is None else old.fits + 1
    else:
        q, scores, volume, fits = old.q, old.scores, old.volume, old.fits
    rate = float(np.sqrt(np.log(A) / episodes) / H) if eta is None else eta
    if np.isinf(rate):
        return Acting(np.eye(A)[q.argmax(-1)], scores, q, volume, fits)
    scores = scores + rate * q
    pi = np.exp(scores - scores.max(-1, keepdims=True))
    return Acting(pi / pi.sum(-1, keepdims=True), scores, q, volume, fits)


@system("nora-actor-critic")
def nora_actor_critic(
    bonus: float = 0.1, eta: float | None = None, lam: float = 1.0, grow: float = 2.0,
    episodes: int = 3000, phi: Any = None,
) -> Planner:  # fmt: skip
    """Mirror descent on a critic of the best values that is optimistic, learns from all data, and
    seldom changes; at each change the actor starts over.

    The linear form: the general one asks a class of functions which of them the data allow, and
    renews the critic once the data rule it out; here a bonus and a determinant stand for both.
    Constants are reconstructed, not the paper's. Play it by
    `surpass.tasks.tabular_play.TabularPlay`; give that a log, and the start is hybrid. With enough
    of it bonus=0 will do.

    Args:
        bonus: of doubt, in units of the horizon. eta: the actor's rate, by default that of the
            analysis, which is slow. lam: ridge. grow: the factor of the determinant.
        episodes: to be played. phi: features [S, A, d], None for a table.

    Raises:
        InputError: when a bonus is negative, or a rate or ridge is not positive.
    """
    if bonus < 0 or lam <= 0 or (eta is not None and eta <= 0):
        raise InputError(
            f"bonus is at least 0, eta and lam are above it; got {bonus}, {eta} and {lam}"
        )
    return Planner(followed(bonus, eta, lam, grow, True, phi, episodes), known(), episodes)


@system("nora-actor-critic:frequent")
def nora_frequent(
    bonus: float = 0.1, eta: float | None = None, lam: float = 1.0, episodes: int = 3000,
    phi: Any = None,
) -> Planner:  # fmt: skip
    """A new critic for each episode, and an actor that never starts over."""
    return Planner(followed(bonus, eta, lam, 1.0, False, phi, episodes), known(), episodes)


@system("nora-actor-critic:lsvi-ucb")
def lsvi_ucb(
    bonus: float = 0.1, lam: float = 1.0, episodes: int = 3000, phi: Any = None
) -> Planner:
    """Greedy on a new optimistic critic in each episode: no actor (LSVI-UCB, 2019)."""
    return Planner(followed(bonus, np.inf, lam, 1.0, True, phi, episodes), known(), episodes)
