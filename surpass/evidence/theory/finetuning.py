"""Evidence for learning beside a good reference policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surpass.evidence.declaration import Result, at_most, evidence
from surpass.methods.theory.finetuning import (
    finetuning_explored,
    finetuning_pessimistic,
    hybrid,
    policy_finetuning,
)
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.tabular_play import TabularPlay, count, sparse_problem, split
from surpass.training.replan import replan

# The best of 0.003, 0.01 and 0.03 for each on four other problems.
ADVANTAGE, PLAIN, EXPLORE, FAR = 0.01, 0.03, 0.003, 0.03


def gap(mdp: TabularMDP, pi: np.ndarray) -> float:
    """What a policy loses, as a share of the optimum; losses below 0.001 count as that."""
    worth = mdp.evaluate(torch.from_numpy(np.array(pi))).value
    return max(1e-3, float(1 - worth / mdp.solve().value))


@evidence(
    "policy-finetuning",
    claim="from 1,000 episodes of a good reference the offline reduction loses at most half of "
    "what exploring without it loses",
    baseline="UCBVI, the constant of every bonus the best of three on four problems apart",
    metric="lost share of the optimum after 1,000 episodes",
    bar=at_most(0.5, times=True), seeds=10, minutes=1.0,
    setting="random problems of 15 states, 6 actions and 10 steps that pay in two states late; the "
    "reference is optimal four times in five.",
    note="A third of UCBVI's loss on average, but more on three of ten problems (0.10 to 1.2): a "
    "third of the episodes is dealt to one log per step. The hybrid loses more than plain "
    "pessimism: among 15 states random actions see everything, and nothing is left to explore.",
)  # fmt: skip
def finetuning_evidence(seed: int, zoo: Any) -> Result:
    """Also: against the reference itself; with a uniform reference, where exploring should win;
    against plain pessimism from 3,000 episodes; and where the reference is random from the sixth
    step on, the hybrid against the better of both."""
    mdp, rng = sparse_problem(seed), np.random.default_rng(seed)
    best = mdp.solve().pi.numpy()
    good, even = 0.8 * best + 0.2 / mdp.n_actions, np.full(best.shape, 1 / mdp.n_actions)
    early = np.concatenate([good[:5], even[5:]])

    def advantage(pi: np.ndarray, episodes: int, c: float) -> float:
        pieces = split(mdp, pi, episodes, rng)
        return gap(mdp, policy_finetuning(c).solve(pieces).pi)

    def plain(pi: np.ndarray, episodes: int, c: float) -> float:
        return gap(mdp, finetuning_pessimistic(c).solve(count(mdp, pi, episodes, rng)).pi)

    form = finetuning_explored(EXPLORE, episodes=1000)
    explored = gap(mdp, replan(form, TabularPlay(mdp), seed=seed).plans[-1].pi)
    both = gap(mdp, hybrid(TabularPlay(mdp), early, 5, (500, 500), EXPLORE, seed=seed))
    ours = advantage(good, 1000, ADVANTAGE)
    return Result(
        ours, explored,
        also={"against the reference itself": (ours, gap(mdp, good), at_most(1.0, times=True)),
              "exploring against a uniform reference's data": (
                  explored, plain(even, 1000, 0.01), at_most(1.0, times=True)),
              "3,000 episodes, against plain pessimism": (
                  advantage(good, 3000, FAR), plain(good, 3000, PLAIN), at_most(1.0, times=True)),
              "a reference that is good early only, the hybrid": (
                  both, min(plain(early, 1000, 0.01), explored), at_most(0.8, times=True))},
    )  # fmt: skip
