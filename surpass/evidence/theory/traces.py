"""Evidence for trajectory-aware traces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surpass.evidence.declaration import Result, at_least, at_most, evidence
from surpass.objectives.traces import (
    contraction,
    recency_bounded,
    recursive_retrace,
    retrace,
    truncated_is,
)
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import grid_world, random_mdp
from surpass.training.backward_view import backward_view, epsilon_greedy_rows, fixed

RULES = {
    "rbis": recency_bounded, "retrace": retrace, "truncated": truncated_is,
    "recursive": recursive_retrace,
}  # fmt: skip
LAMS, RATES, RUNS = (0.4, 0.7, 0.9, 1.0), (0.3, 0.5, 0.7, 0.9), 40
FINER = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
GAMMA, STEPS = 0.9, 3000


def norms(lam: float, right: float) -> dict[str, float]:
    """The norms of Z of one state with two actions, the behavior uniform."""
    P = torch.ones(1, 2, 1, dtype=torch.float64)
    pi, mu = torch.tensor([[right, 1 - right]]), torch.full((1, 2), 0.5)
    return {
        k: float(contraction(rule(lam), P, pi, mu, 0.94).abs().sum(1).max())
        for k, rule in RULES.items()
    }


def _grid(n: int) -> tuple[Tensor, Tensor]:
    """Every pair of lam and step size, n times: [L R n] each."""
    lam, rate = torch.meshgrid(torch.tensor(LAMS), torch.tensor(RATES), indexing="ij")
    return lam.flatten().repeat_interleave(n), rate.flatten().repeat_interleave(n)


def controlled(mdp: TabularMDP, rule: Any, seed: int) -> Tensor:
    """The return of the nearly greedy policy over the course of learning, [lam, step size, run]."""
    lam, rate = _grid(RUNS)
    g, n = torch.Generator().manual_seed(seed), len(lam)

    def follow(rows: Tensor, s: Tensor, episode: Tensor) -> tuple[Tensor, Tensor]:
        wild = torch.where(episode < 5, 1.0, 0.2)[:, None]
        return epsilon_greedy_rows(rows, wild), epsilon_greedy_rows(rows, 0.1)

    learned = backward_view(
        mdp, rule(lam[:, None]), follow, 0.01 * torch.randn(n, mdp.n_states, 4, generator=g), rate,
        STEPS, watch=lambda q: mdp.evaluate(epsilon_greedy_rows(q, 0.05)).value, generator=g,
    )  # fmt: skip
    return learned.watched.mean(1).reshape(len(LAMS), len(RATES), RUNS)


def predicted(mdp: TabularMDP, rule: Any, seed: int) -> Tensor:
    """Minus the root mean squared error after 1,000 steps of even actions, [lam, step size, run];
    all rules see the same steps."""
    g = torch.Generator().manual_seed(seed)
    pi = torch.rand(mdp.n_states, mdp.n_actions, generator=g, dtype=torch.float64)
    pi = pi / pi.sum(1, keepdim=True)
    truth = mdp.evaluate(pi).q
    lam, rate = torch.full((len(FINER) * 200,), 0.9), torch.tensor(FINER).repeat_interleave(200)
    start = torch.zeros(len(lam), mdp.n_states, mdp.n_actions)
    q = backward_view(mdp, rule(lam[:, None]), fixed(mdp.uniform(), pi), start, rate, 1000,
                      generator=g).q  # fmt: skip
    return -(q - truth).square().mean((1, 2)).sqrt().reshape(1, len(FINER), 200)


def tuned(scores: Tensor) -> Tensor:
    """[lam]: the mean of half of the runs at the step size that was best in the other half."""
    halves = scores[..., ::2].mean(-1), scores[..., 1::2].mean(-1)
    picks = [halves[1 - i].argmax(1, keepdim=True) for i in (0, 1)]
    chosen = [h.gather(1, p)[:, 0] for h, p in zip(halves, picks, strict=True)]
    return torch.stack(chosen).mean(0)


@evidence(
    "rbis",
    claim="in control where ways part and join, it earns more than truncated importance sampling "
    "for lam of 0.9 and more and stays within 5 % of the best rule for every lam; it predicts no "
    "worse than Retrace, and its operator contracts faster for every lam between 0 and 1",
    setting="four bifurcation grids, 3,000 steps, 40 runs of each lam, step size and rule a seed, "
    "the mean over learning of the nearly greedy policy's exact return; four random problems of 10 "
    "states a seed, 200 runs of 1,000 steps; one state with two actions for the norms",
    baseline="truncated importance sampling; every rule at its own best step size, chosen "
    "on the other half of the runs",
    metric="mean return over four grids, lam 0.9 and 1",
    bar=at_least(0.0),
    seeds=5,
    minutes=10,
)
def rbis_evidence(seed: int, zoo: Any) -> Result:
    earned = {name: torch.zeros(len(LAMS)) for name in RULES}
    for number in (1, 2, 3, 4):
        mdp = grid_world(f"bifurcation-{number}", gamma=GAMMA, leaving=True)
        for name, rule in RULES.items():
            earned[name] = earned[name] + tuned(controlled(mdp, rule, 4 * seed + number)) / 4
    high = torch.tensor(LAMS) >= 0.9
    best = torch.stack(list(earned.values())).amax(0)
    missed = {"rbis": 0.0, "retrace": 0.0}
    for number in range(4):
        g = torch.Generator().manual_seed(4 * seed + number)
        problem = random_mdp(10, 4, gamma=GAMMA, branching=3, generator=g)
        for name in missed:
            errors = tuned(predicted(problem, RULES[name], 4 * seed + number))
            missed[name] -= float(errors[0]) / 4
    pairs = [norms(lam, right) for lam in (0.3, 0.5, 0.7, 0.9) for right in (0.6, 0.75, 0.9)]
    return Result(
        float(earned["rbis"][high].mean()),
        float(earned["truncated"][high].mean()),
        {
            "share of the best rule's return, least over lam": (
                float((earned["rbis"] / best).min()), 1.0, at_least(0.95, alone=True),
            ),
            "against Retrace, lam 0.9 and 1": (
                float(earned["rbis"][high].mean()), float(earned["retrace"][high].mean()),
            ),
            "error of prediction, lam 0.9, against Retrace": (
                missed["rbis"], missed["retrace"], at_most(1.0, times=True),
            ),
            "norm over that of Retrace, greatest over lam and policies": (
                max(p["rbis"] / p["retrace"] for p in pairs), 1.0, at_most(1.0, alone=True),
            ),
            "norm of truncated importance sampling at lam 1": (
                norms(1.0, 0.6)["truncated"], norms(1.0, 0.6)["rbis"], at_least(1.0, alone=True),
            ),
        },
    )  # fmt: skip
