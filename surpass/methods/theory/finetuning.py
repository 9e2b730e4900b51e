"""A good reference policy beside a problem that may be played: learn pessimistically from what the
reference does, explore without it, or both."""

from __future__ import annotations

import numpy as np

from surpass.forms import Planner
from surpass.objectives.confidence import (
    Pieces,
    Seen,
    optimistic,
    pessimistic,
    reference_advantage,
)
from surpass.objectives.planning import known
from surpass.registry import system
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular_play import TabularPlay, split
from surpass.training.replan import replan

__all__ = ["finetuning_explored", "finetuning_pessimistic", "hybrid", "policy_finetuning"]


def hybrid(
    play: TabularPlay, pi: np.ndarray, at: int, episodes: tuple[int, int], c: float = 0.2,
    delta: float = 0.1, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """HOOVI, for a policy that is good for the first `at` steps only: follow it so far and explore
    from there (the first `episodes`); then learn the first steps from its data (the others),
    toward the values below that exploring left. Gives the concatenated policy [H, S, A]."""
    rng = np.random.default_rng(seed)
    start = TabularPlay(play.mdp, pi, at)
    replan(Planner(optimistic(c, delta), known(), episodes[0]), start, seed=seed)
    later = optimistic(c, delta)(start.records())
    pieces = split(play.mdp, pi, episodes[1], rng)

    def head(seen: Seen) -> Seen:
        return Counts(seen.n[:at], seen.paid[:at], None)

    cut = Pieces(head(pieces.ref), head(pieces.zero), tuple(map(head, pieces.steps[:at])))
    first = reference_advantage(c, delta, later.low[at])(cut)
    return np.concatenate([first.pi, later.pi[at:]])


@system("policy-finetuning")
def policy_finetuning(c: float = 0.2, delta: float = 0.1) -> Planner:
    """The offline reduction with a reference value: solve what `split` of the reference's episodes
    gives. `hybrid` combines it with exploring."""
    return Planner(reference_advantage(c, delta))


@system("policy-finetuning:lcb")
def finetuning_pessimistic(c: float = 0.2, delta: float = 0.1) -> Planner:
    """The offline reduction by plain pessimism, from all episodes at once."""
    return Planner(pessimistic(c, delta))


@system("policy-finetuning:ucbvi")
def finetuning_explored(c: float = 0.2, delta: float = 0.1, episodes: int = 1000) -> Planner:
    """Exploring without the reference."""
    return Planner(optimistic(c, delta), known(), episodes)
