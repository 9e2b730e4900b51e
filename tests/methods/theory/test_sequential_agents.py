"""Agents in order: values by hand, the joint optimum, and the trap for those who see nothing."""

import pytest
import torch

from surpass.errors import InputError
from surpass.methods.theory.sequential_agents import mappo_global, mappo_independent
from surpass.objectives.sequential_agents import (
    independent_step,
    joint_policy,
    localized_values,
    marginal_values,
    product_policy,
    sequential_step,
)
from surpass.tasks.team_games import climbing_game, penalty_game, team_problem


def random_agents(seed=0, sizes=(2, 3, 2), S=4):
    g = torch.Generator().manual_seed(seed)
    agents = [torch.rand(S, *sizes[: m + 1], generator=g).double() for m in range(len(sizes))]
    q = torch.randn(S, *sizes, generator=g, dtype=torch.float64)
    return [a / a.sum(-1, keepdim=True) for a in agents], q


def test_advantages_of_agents_add_up_to_that_of_all():
    """sum_m Q^{1:m} - Q^{1:m-1} = Q - V, and each is centered under its agent."""
    pis, q = random_agents()
    local = localized_values(q, pis)
    v = (joint_policy(pis) * q).flatten(1).sum(-1)
    before, parts = v, []
    for pi, value in zip(pis, local, strict=True):
        advantage = value - before[..., None]
        torch.testing.assert_close((pi * advantage).sum(-1), torch.zeros_like(before))
        parts.append(advantage)
        before = value
    total = sum(p.reshape(*p.shape, *[1] * (q.dim() - p.dim())) for p in parts)
    torch.testing.assert_close(total.expand_as(q), q - v.reshape(-1, 1, 1, 1))


def test_values_of_two_agents_by_hand():
    first = torch.tensor([[0.25, 0.75]]).double()
    second = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]).double()
    q = torch.tensor([[[4.0, 0.0], [1.0, 8.0]]]).double()
    assert localized_values(q, [first, second])[0].tolist() == [[2.0, 1.0]]
    alone = torch.tensor([[0.5, 0.5]]).double()
    found = marginal_values(q, [first, alone])
    torch.testing.assert_close(found[0], torch.tensor([[2.0, 4.5]]).double())
    torch.testing.assert_close(found[1], torch.tensor([[1.75, 6.0]]).double())


def test_one_agent_is_the_same_in_both():
    g = torch.Generator().manual_seed(1)
    pi, q = torch.rand(3, 4, generator=g).double(), torch.randn(3, 4, generator=g).double()
    pi = pi / pi.sum(-1, keepdim=True)
    torch.testing.assert_close(sequential_step([pi], q, 0.7)[0], independent_step([pi], q, 0.7)[0])
    torch.testing.assert_close(product_policy([pi]), joint_policy([pi]))


@pytest.mark.parametrize("game, best", [(climbing_game, 11.0), (penalty_game, 10.0)])
def test_every_start_ends_at_the_top_of_a_game(game, best):
    for seed in range(10):
        found = mappo_global((3, 3), 5.0, 300, start=1.0, seed=seed).solve(game())
        assert found.values[-1] == pytest.approx(best, rel=1e-3)


def test_agents_who_see_nothing_are_trapped_from_even_policies():
    found = mappo_independent((3, 3), 5.0, 600).solve(climbing_game())
    assert found.values[-1] < 7.5


def test_values_never_fall_and_reach_the_optimum_of_a_team_problem():
    mdp = team_problem(0)
    found = mappo_global((3, 3, 3), 0.3, 300).solve(mdp)
    assert all(b >= a - 1e-9 for a, b in zip(found.values, found.values[1:], strict=False))
    assert found.values[-1] == pytest.approx(float(mdp.solve().value), rel=1e-3)


def test_bad_input():
    with pytest.raises(InputError, match="9 joint actions; this problem has 27"):
        mappo_global((3, 3)).solve(team_problem(0))
