"""Evidence for effective horizons: which of many sticky rooms are hard, for whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.methods.theory.shallow import sqirl
from surpass.objectives.effective_horizon import effective_horizon
from surpass.objectives.trust import clip
from surpass.objectives.views import Steps
from surpass.tasks.random_suffix import SuffixPlay, sticky_room
from surpass.tasks.tabular import TabularMDP
from surpass.training.replan import replan

ROOMS, LEVEL, MOST = 16, 0.95, 512
BATCH, BATCHES = 64, 300


def rooms(seed: int) -> list[TabularMDP]:
    """Rooms of 4 x 4 to 6 x 6 cells."""
    rng = np.random.default_rng(seed)
    return [sticky_room(rng, side=int(rng.integers(4, 7))) for _ in range(ROOMS)]


def hardness(mdp: TabularMDP) -> float:
    """The effective horizon, exactly."""
    r = np.broadcast_to(mdp.r.numpy(), (mdp.horizon or 1, *mdp.r.shape)).copy()
    return effective_horizon(mdp.P.numpy(), r, mdp.d0.numpy()).value


def solved(mdp: TabularMDP, pi: Any, best: float) -> bool:
    """Whether a policy is within 5 percent of the optimum."""
    return float(mdp.evaluate(torch.as_tensor(pi)).value) >= LEVEL * best


def steps_of_sqirl(mdp: TabularMDP, best: float, seed: int) -> float:
    """The fewest steps, over powers of two of episodes and k of 1 to 3, from which two of two
    trials solve the room."""
    m = 4
    while m <= MOST:
        for k in (1, 2, 3):
            if all(solved(mdp, replan(sqirl(k, 20), SuffixPlay(mdp, m), seed=seed + i).plans[-1].pi,
                          best) for i in range(2)):  # fmt: skip
                return float(m * 20 * 20)
        m *= 2
    return float(m * 20 * 20)


def steps_of_ppo(mdp: TabularMDP, best: float, seed: int, lr: float = 0.1) -> float:
    """Steps until a softmax table, trained by clipped ratios on returns-to-go less their mean in
    the state and four epochs a batch of 64 episodes, solves the room."""
    table = torch.zeros(20, mdp.n_states, mdp.n_actions, dtype=torch.float64, requires_grad=True)
    optimizer, g = torch.optim.Adam([table], lr), torch.Generator().manual_seed(seed)
    value = torch.zeros(20, mdp.n_states, dtype=torch.float64)
    step = torch.arange(20).expand(BATCH, 20)
    for batch in range(1, BATCHES + 1):
        seq = mdp.rollout(table.detach().softmax(-1), BATCH, generator=g, dtype=torch.float64)
        at = (step, seq.extras["state"], seq.action)  # type: ignore[index]
        togo = seq.reward.flip(1).cumsum(1).flip(1)  # type: ignore[union-attr]
        advantage = togo - value[at[:2]]
        value.index_put_(at[:2], value[at[:2]] + 0.1 * advantage)
        advantage = advantage / (advantage[seq.mask > 0].std() + 1e-8)
        old = table.detach().log_softmax(-1)[at]
        for _ in range(4):
            logp = table.log_softmax(-1)[at]
            loss = clip()(Steps(logp, seq.mask, anchor_logp=old, behavior_logp=old,
                                log_ratio=logp - old, advantage=advantage))  # fmt: skip
            optimizer.zero_grad()
            ((loss * seq.mask).sum() / seq.mask.sum()).backward()  # type: ignore[operator]
            optimizer.step()
        if solved(mdp, table.detach().argmax(-1).eq(torch.arange(4)[:, None, None]).permute(
                1, 2, 0).double(), best):  # fmt: skip
            return float(batch * BATCH * 20)
    return float(2 * BATCHES * BATCH * 20)


@evidence(
    "sqirl",
    claim="the effective horizon orders rooms as the steps do that learning from random actions "
    "takes, and those order them as PPO's do",
    baseline="the shortest way to the optimum: the mean number of steps of the optimal policy",
    metric="rank correlation over 16 rooms with the steps until 95 percent of the optimum",
    bar=at_least(0.7, alone=True), seeds=5, minutes=6.0,
    setting="rooms of 4 x 4 to 6 x 6 with walls, two lures, moves that stick one time in four, 20 "
    "steps; tables.",
)  # fmt: skip
def sqirl_evidence(seed: int, zoo: Any) -> Result:
    """Also: the steps of both learners."""
    found = []
    for i, mdp in enumerate(rooms(seed)):
        solution = mdp.solve()
        best = float(solution.value)
        length = float(TabularMDP(mdp.P, torch.ones_like(mdp.r), mdp.d0, horizon=20,
                                  terminal=mdp.terminal).evaluate(solution.pi).value)  # fmt: skip
        found.append((hardness(mdp), steps_of_sqirl(mdp, best, 100 * seed + i),
                      steps_of_ppo(mdp, best, seed), length))  # fmt: skip
    hard, ours, ppo, length = np.array(found).T

    def agreement(x: np.ndarray, y: np.ndarray) -> float:
        return float(spearmanr(x, y).statistic)  # type: ignore[attr-defined]

    return Result(
        agreement(hard, ours), agreement(length, ours),
        also={"rank correlation of the steps of both learners": (
                  agreement(ours, ppo), agreement(length, ppo), at_least(0.6, alone=True)),
              "rank correlation of PPO's steps with the effective horizon": (
                  agreement(hard, ppo), agreement(length, ppo))},
    )  # fmt: skip
