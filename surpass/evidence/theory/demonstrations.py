"""Evidence for learning with a penalty for leaving the clone of demonstrations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.evidence.theory.finetuning import gap
from surpass.methods.theory.demonstrations import demo_reg_rl
from surpass.methods.theory.finetuning import finetuning_explored
from surpass.objectives.demonstrations import budgeted, clone_of, rewards_of_preferences
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.tabular_play import TabularPlay, count, sparse_problem
from surpass.training.replan import replan

# Of 0.003 and 0.01 for both bonuses, and of four scales of the budget, on three problems apart.
BONUS, SCALE, LEVEL, MOST = 0.003, 0.03, 0.05, 600


def needed(mdp: TabularMDP, form: Any, seed: int) -> tuple[float, np.ndarray]:
    """Episodes until a policy loses at most a twentieth of the optimum (looked at every 20th), and
    the last policy."""
    plans = replan(form, TabularPlay(mdp), seed=seed).plans
    for i in range(0, len(plans), 20):
        if gap(mdp, plans[i].pi) <= LEVEL:
            return float(i + 1), plans[-1].pi
    return float(len(plans)), plans[-1].pi


def preferred(mdp: TabularMDP, clone: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rewards from 300 preferences between pairs of the clone's trajectories."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    drawn = mdp.rollout(torch.from_numpy(clone), 600, generator=generator)
    assert drawn.extras is not None and drawn.reward is not None
    path = torch.stack([drawn.extras["state"], drawn.action], -1).numpy()
    earned = drawn.reward.sum(1).numpy()
    first, second = slice(0, 300), slice(300, 600)
    better = rng.random(300) < 1 / (1 + np.exp(earned[second] - earned[first]))
    return rewards_of_preferences(path[first], path[second], better.astype(int),
                                  mdp.n_states, mdp.n_actions)  # fmt: skip


@evidence(
    "demo-reg-rl",
    claim="fifty demonstrations halve the episodes that exploring needs, more of them halve it "
    "again, and a wrong expert does not cost more than twice",
    baseline="UCBVI without demonstrations; the bonus of both, and the scale of the budget, chosen "
    "on three problems apart",
    metric="episodes until at most 5 percent of the optimum are lost, of 600",
    bar=at_most(0.5, times=True), seeds=10, minutes=3.0,
    setting="random problems of 12 states, 5 actions and 8 steps that pay in two states late; the "
    "expert errs once in twenty.",
    note="Fifty demonstrations save 41 percent of the episodes (12 to 61), and 250 another 42 over "
    "ten: the ways are as claimed, their size is open in ten problems. UCBVI never got there on "
    "three of them.",
)  # fmt: skip
def demonstrations_evidence(seed: int, zoo: Any) -> Result:
    """Also: 250 demonstrations against 10; the end beside the clone alone; how the divergence from
    the clone falls; a uniform expert; and rewards from preferences, with the penalty and greedy."""
    mdp, rng = sparse_problem(seed, 12, 5, 8), np.random.default_rng(seed)
    best, optimum = mdp.solve().pi.numpy(), float(mdp.solve().value)
    expert, even = 0.95 * best + 0.05 / 5, np.full(best.shape, 0.2)

    def learned(pi: np.ndarray, n: int) -> tuple[float, np.ndarray, np.ndarray]:
        shown = count(mdp, pi, n, rng)
        clone, lam = clone_of(shown), budgeted(LEVEL * optimum, shown, SCALE)
        return *needed(mdp, demo_reg_rl(clone, lam, BONUS, episodes=MOST), seed), clone

    def divergence(n: int) -> float:
        """KL of the expert's trajectories from the clone of n, the mean of ten."""
        visits = mdp.occupancy(torch.from_numpy(expert)).numpy()
        clones = [clone_of(count(mdp, expert, n, rng)) for _ in range(10)]
        return float(np.mean([(visits * np.log(expert / c)).sum() for c in clones]))

    alone, _ = needed(mdp, finetuning_explored(BONUS, episodes=MOST), seed)
    fifty, last, clone = learned(expert, 50)
    slope = np.log(divergence(250) / divergence(10)) / np.log(25)
    rewards = torch.from_numpy(preferred(mdp, clone, rng))
    hat = TabularMDP(mdp.P, rewards, mdp.d0, horizon=mdp.horizon)
    held = gap(mdp, hat.solve_soft(0.2, torch.from_numpy(clone)).pi.numpy())
    greedy = gap(mdp, hat.solve().pi.numpy())
    return Result(
        fifty, alone,
        also={"episodes, 250 demonstrations against 10": (
                  learned(expert, 250)[0], learned(expert, 10)[0], at_most(0.5, times=True)),
              "lost at the end, against the clone": (
                  gap(mdp, last), gap(mdp, clone), at_most(1.0, times=True)),
              "slope of the divergence from the clone": (slope, 0.0, at_most(-0.6, alone=True)),
              "episodes, a uniform expert": (learned(even, 50)[0], alone, at_most(2.0, times=True)),
              "percent of the optimum on preferred rewards, against greedy": (
                  100 * (1 - held), 100 * (1 - greedy), at_least(5.0))},
    )  # fmt: skip
