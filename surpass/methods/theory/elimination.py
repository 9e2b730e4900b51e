"""The best of a few policies, from as few episodes as their differences ask for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from surpass.forms import Planner
from surpass.objectives.policy_differences import (
    designed,
    differences,
    state_laws,
    unlikeness,
)
from surpass.parts import part
from surpass.registry import system
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.tabular_play import add, count

__all__ = ["Chosen", "Trial", "eliminated", "perp"]


class Trial(NamedTuple):
    """A problem that may be played, and the policies [n, H, S, A] to choose from; rewards of the
    play have normal `noise`."""

    mdp: TabularMDP
    policies: Float[np.ndarray, "n H S A"]
    noise: float = 1.0


class Chosen(NamedTuple):
    """The best policy's number, the survivors, their estimated differences from the reference
    (`gain`), and the episodes played."""

    best: int
    survivors: Int[np.ndarray, "m"]
    gain: Float[np.ndarray, "m"]
    spent: int


@part
def eliminated(
    trial: Trial, /, eps: float = 0.05, delta: float = 0.1, c: float = 1.0,
    budget: int = 10_000, first: float = 0.1, seed: int = 0,
) -> Chosen:  # fmt: skip
    """Epochs of halved accuracy eps_l, on the policies that are left:

    1. the reference is the policy from which the others differ the least, by U;
    2. it is played c max U log(H n / delta) / eps_l^2 times: the law of its states;
    3. episodes are dealt to policies so that max_pi sum_h |v_h(pi)|^2 in the inverse of the visits
       is at most eps_l^2 / (c log(H n / delta)): transitions and rewards where policies differ;
    4. policies that fall eps_l behind the best are out.

    A share `first` of the budget is played at random to begin with. When the budget does not reach
    for an epoch, both of its parts shrink alike and it is the last.
    """
    mdp, rng = trial.mdp, np.random.default_rng(seed)
    H, S, A = mdp.horizon or 1, mdp.n_states, mdp.n_actions
    left = np.arange(len(trial.policies))
    even = np.full((H, S, A), 1 / A)
    start = max(int(first * budget), 1)
    seen, spent, gain = count(mdp, even, start, rng, trial.noise), start, np.zeros(len(left))
    d0, scale, width = mdp.d0.numpy(), c * np.log(H * len(left) / delta), 1.0
    while spent < budget:
        pis = trial.policies[left]
        P, r = _model(seen)
        far = unlikeness(P, r, d0, pis)  # [reference, policy]
        anchor = int(far.max(1).argmin())
        law = state_laws(P, d0, pis)
        _, v = differences(P, r, pis, pis[anchor], law[anchor])
        share, norm = designed(v, np.concatenate([law[..., None] * pis, _visits(P, d0, even)]))
        asked = np.array([far[anchor].max(), norm]) * scale / width**2
        scaled = min(1.0, (budget - spent) / max(asked.sum(), 1e-12))
        n_law, n_model = np.maximum(np.ceil(scaled * asked), 1).astype(int)
        own = count(mdp, pis[anchor], int(n_law), rng, trial.noise)
        for pi, n in zip([*pis, even], rng.multinomial(n_model, share), strict=True):
            if n:
                seen = add(seen, count(mdp, pi, int(n), rng, trial.noise))
        seen, spent = add(seen, own), spent + int(n_law + n_model)
        P, r = _model(seen)
        visits = own.n.sum((2, 3)) / max(int(n_law), 1)
        gain, _ = differences(P, r, pis, pis[anchor], visits)
        kept = gain.max() - gain <= width
        last = scaled < 1 or width <= eps or kept.sum() == 1
        left, gain, width = left[kept], gain[kept], width / 2
        if last:
            break
    return Chosen(int(left[gain.argmax()]), left, gain, spent)


def _model(seen: Counts) -> tuple[np.ndarray, np.ndarray]:
    n = np.maximum(seen.n.sum(-1), 1)
    return seen.n / n[..., None], seen.paid / n


def _visits(P: np.ndarray, d0: np.ndarray, pi: np.ndarray) -> np.ndarray:
    return state_laws(P, d0, pi[None])[..., None] * pi


@system("perp")
def perp(
    eps: float = 0.05, delta: float = 0.1, c: float = 1.0, budget: int = 10_000,
    first: float = 0.1, seed: int = 0,
) -> Planner:  # fmt: skip
    """Policy elimination by differences from a reference, which is estimated by itself.

    `solve` takes a `Trial`. What all policies do alike costs nothing.

    Args:
        eps: how far from the best the chosen policy may be. delta: with what probability not.
        c: of the numbers of episodes. budget: episodes at most. first: played at random at first.
    """
    return Planner(eliminated(eps, delta, c, budget, first, seed))
