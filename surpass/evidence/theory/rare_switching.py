"""Evidence for an actor that follows an optimistic critic: a lock, and a river to swim up."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.forms import Planner
from surpass.methods.theory.rare_switching import lsvi_ucb, nora_actor_critic, nora_frequent
from surpass.tasks.linear_mdp import Counts
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.tabular_play import TabularPlay, add, count
from surpass.tasks.worlds import combination_lock, river_swim
from surpass.training.replan import replan

EPISODES = 3000


class Tuned(NamedTuple):
    """Bonus and rate, the bonus of LSVI-UCB, and the rates of the other two: the best of a grid on
    seeds 100 to 102, for each arm by itself."""

    bonus: float
    eta: float
    greedy: float
    plain: float
    last: float


LOCK, RIVER = Tuned(0.1, 10.0, 0.1, 1.0, 1.0), Tuned(0.1, 0.3, 0.2, 1.0, 0.3)


class LastOnly(TabularPlay):
    """Tells of the last episode only."""

    def follow(self, plan: Any, rng: np.random.Generator) -> float:
        """One episode; what was before is forgotten."""
        self.seen.n[...] = 0
        self.seen.paid[...] = 0
        return super().follow(plan, rng)


def lock(seed: int) -> TabularMDP:
    """Six steps of four actions."""
    return combination_lock(6, 4, generator=torch.Generator().manual_seed(seed))[0]


def played(form: Any, place: TabularPlay, seed: int) -> tuple[float, Any]:
    """Regret, from every tenth episode, and the last plan."""
    plans, mdp = replan(form, place, seed=seed).plans, place.mdp
    best = float(mdp.solve().value)
    lost = [best - worth(mdp, plan) for plan in plans[::10]]
    return 10 * float(np.sum(lost)), plans[-1]


def worth(mdp: TabularMDP, plan: Any) -> float:
    """What a plan's policy earns."""
    return float(mdp.evaluate(torch.from_numpy(np.array(plan.pi))).value)


def nora(how: Tuned, bonus: bool = True) -> Planner:
    """The recipe, with or without its bonus."""
    b, eta = (how.bonus, how.eta) if bonus else (0.0, how.plain)
    return nora_actor_critic(b, eta, episodes=EPISODES)


def regrets(mdp: TabularMDP, how: Tuned, seed: int) -> dict[str, tuple[float, Any]]:
    """Of the arms that begin with nothing."""
    last = nora_frequent(0.0, how.last, lam=1e-6, episodes=EPISODES)
    return {
        "nora": played(nora(how), TabularPlay(mdp), seed),
        "plain": played(nora(how, False), TabularPlay(mdp), seed),
        "last": played(last, LastOnly(mdp), seed),
        "greedy": played(lsvi_ucb(how.greedy, episodes=EPISODES), TabularPlay(mdp), seed),
    }


def mixture(mdp: TabularMDP, rng: np.random.Generator) -> Counts:
    """300 episodes, half of the optimum and half of even actions."""
    best, even = mdp.solve().pi.numpy(), mdp.uniform().numpy()
    return add(count(mdp, best, 150, rng), count(mdp, even, 150, rng))


@evidence(
    "nora-actor-critic",
    claim="on a lock the optimistic critic at most halves the regret of actor-critics without "
    "optimism or without old data, at 1.5 times that of LSVI-UCB at most, with a new critic in at "
    "most a tenth of the episodes",
    baseline="the better of the same actor-critic without a bonus and one whose critic sees the "
    "last episode only; rates and bonuses of each arm chosen on seeds 100 to 102",
    metric="regret of 3,000 episodes",
    bar=at_most(0.5, times=True), seeds=5, minutes=3.0,
    setting="a lock of six steps and four actions, and RiverSwim of six places and 20 steps; "
    "tables, one for each step.",
    note="On the lock everything holds but one: without a bonus and a log the actor opens it on "
    "two of five seeds by itself. On the river the optimistic critic has 1.2 times the regret"
    " of an actor-critic without a bonus (0.6 to 2.3), though 0.68 of LSVI-UCB's: optimism "
    "pays where chance does not find the way, and there it does.",
)  # fmt: skip
def rare_switching_evidence(seed: int, zoo: Any) -> Result:
    """Also: against LSVI-UCB; the critics; the river; 300 logged episodes before the first, and
    with them no bonus."""
    mdp, rng = lock(seed), np.random.default_rng(seed)
    found, swum = regrets(mdp, LOCK, seed), regrets(river_swim(), RIVER, seed)
    ours, plan = found["nora"]
    log = mixture(mdp, rng)
    hybrid, _ = played(nora(LOCK), TabularPlay(mdp, log=log), seed)
    _, opened = played(nora(LOCK, False), TabularPlay(mdp, log=log), seed)

    def better(arms: dict[str, tuple[float, Any]]) -> float:
        return min(arms["plain"][0], arms["last"][0])

    return Result(
        ours, better(found),
        also={"regret, against LSVI-UCB": (ours, found["greedy"][0], at_most(1.5, times=True)),
              "percent of episodes with a new critic": (
                  100 * plan.fits / EPISODES, 100.0, at_most(10.0, alone=True)),
              "regret on the river": (
                  swum["nora"][0], better(swum), at_most(0.5, times=True)),
              "regret on the river, against LSVI-UCB": (
                  swum["nora"][0], swum["greedy"][0], at_most(1.5, times=True)),
              "regret with a log, against none": (hybrid, ours, at_most(0.7, times=True)),
              "worth at the end without a bonus, with a log and without": (
                  worth(mdp, opened), worth(mdp, found["plain"][1]), at_least(0.5))},
    )  # fmt: skip
