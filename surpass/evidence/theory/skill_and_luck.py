"""Evidence for returns split into skill and luck: values of a policy from paths of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import surpass as sp
from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.methods.theory.skill_and_luck import off_policy_dae, off_policy_dae_table
from surpass.objectives.skill_and_luck import Paths, Split
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import grid_world, random_mdp

GAMMA, N, SEGMENTS, MODELS = 0.95, 8, 5000, 3


def nearly_greedy(mdp: TabularMDP) -> Tensor:
    """The optimal action nine times in ten, any otherwise."""
    return 0.9 * mdp.solve().pi + 0.1 * mdp.uniform()


def worlds(seed: int, certain: bool = False) -> list[TabularMDP]:
    """Random models of 20 states, and a grid that slips three times in ten, from anywhere."""
    g = torch.Generator().manual_seed(seed)
    found = [random_mdp(20, 4, gamma=GAMMA, branching=1 if certain else 3, generator=g)
             for _ in range(MODELS)]  # fmt: skip
    grid = grid_world("open", slip=0.0 if certain else 0.3, gamma=GAMMA)
    even = torch.full_like(grid.d0, 1 / grid.n_states)
    return [*found, TabularMDP(grid.P, grid.r, even, GAMMA, terminal=grid.terminal)]


def walked(mdp: TabularMDP, behavior: Tensor, seed: int) -> Paths:
    """So many pieces of N steps from episodes of 5 N."""
    g = torch.Generator().manual_seed(seed)
    log = mdp.rollout(behavior, SEGMENTS // 5, 5 * N, g, dtype=torch.float64)
    assert log.extras is not None and log.reward is not None
    s = torch.cat([log.extras["state"], log.extras["next_state"][:, -1:]], 1)
    pieces = s.unfold(1, N + 1, N).flatten(0, 1)
    return Paths(pieces, log.action.reshape(-1, N), log.reward.reshape(-1, N))


def counted(mdp: TabularMDP, paths: Paths) -> Tensor:
    """p(s'|s, a) as the paths show it; an action never seen stays."""
    S, A = mdp.n_states, mdp.n_actions
    at = (paths.state[:, :-1] * A + paths.action) * S + paths.state[:, 1:]
    n = torch.bincount(at.flatten(), minlength=S * A * S).double().reshape(S, A, S)
    stay = torch.eye(S, dtype=torch.float64)[:, None].expand_as(n)
    return torch.where(n.sum(-1, keepdim=True) > 0, n / n.sum(-1, keepdim=True).clamp_min(1), stay)


def error(mdp: TabularMDP, pi: Tensor, split: Split, skilled: bool = True) -> float:
    """The root mean squared error of V, and of A where there is one."""
    v, q, _ = mdp.evaluate(pi)
    off = [(split.v - v), *([(split.skill - q + v[:, None]).flatten()] if skilled else [])]
    return float(torch.cat(off).square().mean().sqrt())


def errors(seed: int, own: bool = False, certain: bool = False) -> dict[str, float]:
    """Of each way, the mean over worlds."""
    found: dict[str, list[float]] = {}
    for i, mdp in enumerate(worlds(seed, certain)):
        pi = nearly_greedy(mdp)
        paths = walked(mdp, pi if own else mdp.uniform(), 10 * seed + i)
        ways = {"known": (mdp.P, True), "counted": (counted(mdp, paths), True),
                "no luck": (None, True), "plain": (None, False)}  # fmt: skip
        for name, (chances, skilled) in ways.items():
            split = off_policy_dae_table(pi, GAMMA, chances, skilled).solve(paths)
            found.setdefault(name, []).append(error(mdp, pi, split, skilled))
    return {name: sum(e) / len(e) for name, e in found.items()}


def learned(seed: int, lucky: bool, steps: int = 3000) -> float:
    """What nets make of a log of random actions, from that (0) to the optimum (1)."""
    mdp = worlds(seed)[0]
    log = mdp.transitions(mdp.uniform(), 200, 50, torch.Generator().manual_seed(seed))
    form = off_policy_dae(N, gamma=GAMMA, lucky=lucky, lr=1e-3, beta=0.01, hidden=(64, 64))
    trained = sp.train(form, log, steps=steps, seed=seed)
    eye = torch.eye(mdp.n_states)
    pi = torch.nn.functional.one_hot(torch.as_tensor(trained.predict(eye)), 4)
    low, high = float(mdp.evaluate(mdp.uniform()).value), float(mdp.solve().value)
    return (float(mdp.evaluate(pi).value) - low) / (high - low)


@evidence(
    "off-policy-dae",
    claim="from paths of random actions, V and A of a nearly greedy policy are at most half as "
    "wrong as without luck, and as the plain n-step return's",
    baseline="the same regression without luck (DAE), on the same paths",
    metric="root mean squared error of V and A over three random models and a slippery grid",
    bar=at_most(0.5, times=True), seeds=5, minutes=2.0,
    setting="20 and 25 states, gamma 0.95, 5,000 paths of 8 steps; luck centered by the known "
    "chances, beside it by counted ones.",
    note="V and A come 170 times nearer to the truth than without luck, and 14 to 25 times with "
    "chances that were counted. Open is only what nets make of a log of random actions: 0.88 "
    "of the optimum with luck, 0.90 without.",
)  # fmt: skip
def skill_and_luck_evidence(seed: int, zoo: Any) -> Result:
    """Also: the plain return; where nothing is random; on paths of the policy itself; nets that
    learn to act from a log, with and without luck."""
    off, own, sure = errors(seed), errors(seed, own=True), errors(seed, certain=True)
    return Result(
        off["known"], off["no luck"],
        also={"error against the plain n-step return": (
                  off["known"], off["plain"], at_most(0.5, times=True)),
              "error with counted chances": (
                  off["counted"], off["no luck"], at_most(0.5, times=True)),
              "error where nothing is random": (sure["known"], sure["no luck"]),
              "error on the policy's own paths": (own["known"], own["no luck"]),
              "share of the optimum by nets": (
                  learned(seed, True), learned(seed, False), at_least(0.0))},
    )  # fmt: skip
