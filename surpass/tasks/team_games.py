"""Problems of a team: games that trap agents who do not see each other, and random ones."""

from __future__ import annotations

import torch

from surpass.tasks.tabular import TabularMDP

__all__ = ["climbing_game", "penalty_game", "team_problem"]


def _once(payoff: list[list[float]]) -> TabularMDP:
    """One joint decision, then nothing."""
    r = torch.tensor(payoff, dtype=torch.float64).flatten()
    P = torch.zeros(2, len(r), 2, dtype=torch.float64)
    P[..., 1] = 1.0
    both = torch.stack([r, torch.zeros_like(r)])
    return TabularMDP(P, both, torch.tensor([1.0, 0.0]), 0.9, terminal=torch.tensor([False, True]))


def climbing_game() -> TabularMDP:
    """Two agents of three actions: 11 at the top, beside losses of 30 for whoever climbs alone.

    The Dynamics of Reinforcement Learning in Cooperative Multiagent Systems (1998).
    """
    return _once([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])


def penalty_game(penalty: float = -30.0) -> TabularMDP:
    """Two ways to 10 that must be agreed on, and a safe 2 between them; from the same paper."""
    return _once([[10.0, 0.0, penalty], [0.0, 2.0, 0.0], [penalty, 0.0, 10.0]])


def team_problem(
    seed: int, states: int = 5, agents: int = 3, actions: int = 3, gamma: float = 0.8
) -> TabularMDP:
    """Random moves; in each state one joint action pays 1, those that differ from it by one agent
    lose 1, and one far from it pays 0.6 as do its neighbors 0.5: a trap that is easy to agree
    on."""
    g = torch.Generator().manual_seed(seed)
    A = actions**agents
    P = torch.rand(states, A, states, generator=g, dtype=torch.float64) ** 3
    P = P / P.sum(-1, keepdim=True)
    digits = torch.stack(
        [torch.arange(A) // actions**i % actions for i in reversed(range(agents))], -1
    )
    r = torch.zeros(states, A, dtype=torch.float64)
    for s in range(states):
        best = torch.randint(actions, (agents,), generator=g)
        trap = (best + 1 + torch.randint(actions - 1, (agents,), generator=g)) % actions
        far = (digits != best).sum(-1)
        near_trap = (digits != trap).sum(-1)
        r[s] = torch.where(near_trap == 1, 0.5, torch.where(near_trap == 0, 0.6, 0.0).double())
        r[s] = torch.where(far == 1, -1.0, torch.where(far == 0, 1.0, r[s]))
    d0 = torch.full((states,), 1 / states, dtype=torch.float64)
    return TabularMDP(P, r, d0, gamma)
