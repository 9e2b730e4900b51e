"""Plans and nets from what an agent believes."""

from __future__ import annotations

import pytest
import torch

import surpass as sp
from surpass.critics.dynamics import residual
from surpass.critics.grid_values import Grid, goal_grid
from surpass.errors import InputError
from surpass.forms import Spaces, box
from surpass.methods.theory.world_models import Wanted, p_learning_net
from surpass.objectives.inversion import Beliefs, explained, nearest_next
from surpass.objectives.rows import Rows
from surpass.tasks.tabular import TabularMDP
from surpass.tasks.worlds import four_rooms
from surpass.training.streams import open_stream


def test_an_unseen_goal_is_planned_in_the_extracted_model():
    """Values of reaching single cells are enough to reach a far one around a trap."""
    world = four_rooms("windy", gamma=0.9)
    S = world.n_states
    near = (world.P.sum(1) > 0) | torch.eye(S, dtype=torch.bool)
    reward = torch.rand(6, S, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = torch.stack([TabularMDP(world.P, world.P @ r, world.d0, 0.9).solve().q for r in reward], -1)
    form = sp.p_learning()
    P = form.model.definition.function(Beliefs(q, reward, 0.9), support=near)
    goal, trap = torch.zeros(S, dtype=torch.float64), torch.zeros(S, dtype=torch.bool)
    goal[60], trap[60], trap[30] = 1.0, True, True
    plan = form.solve(Wanted(P, goal, 0.9, trap))
    truth = Wanted(world.P, goal, 0.9, trap).mdp
    best = float(truth.solve().value)
    assert float(truth.evaluate(plan.pi).value) == pytest.approx(best, rel=1e-6)
    assert float(truth.evaluate(truth.uniform()).value) < 0.7 * best
    # and with what is known of the world, the recipe does both in two calls
    sure = sp.p_learning(nearest_next())
    plain = four_rooms("plain", gamma=0.9)
    q = torch.stack([TabularMDP(plain.P, plain.P @ r, plain.d0, 0.9).solve().q for r in reward], -1)
    assert torch.equal(sure.model(Beliefs(q, reward, 0.9)), plain.P)


class Nets(dict):
    __getattr__ = dict.__getitem__


def corridor():
    """One dimension, pushes of -0.1, 0 or 0.2; goals at both ends and in the middle."""
    ends = torch.tensor([[0.0], [0.5], [1.0]])

    def moves(x, a):
        return (x + torch.tensor([-0.1, 0.0, 0.2])[a][:, None]).clamp(0.0, 1.0)

    def worth(x, g):  # smooth, so that one step of gradient says where to go
        return torch.exp(-8.0 * (x - g).square()[:, 0])

    never = lambda x, g: torch.zeros_like(x[:, 0])  # noqa: E731
    agent = goal_grid(moves, Grid((0.0,), (1.0,), 41), 3, ends, worth, never, 0.8)
    return moves, agent


def test_the_true_model_explains_an_exact_agent_and_no_other_does():
    moves, agent = corridor()
    x = Grid((0.0,), (1.0,), 41).points
    rows = Rows({"obs": x, "action": torch.arange(41) % 3})
    torch.manual_seed(0)
    right = explained(0.8)(Nets(model=lambda s, a: moves(s, a), agent=agent), rows)
    assert float(right.abs().max()) < 1e-4
    wrong = explained(0.8)(Nets(model=lambda s, a: s, agent=agent), rows)
    assert float(wrong[rows.action != 1].mean()) > 0.05
    torch.manual_seed(0)
    square = explained(0.8, squared=True)(Nets(model=lambda s, a: moves(s, a), agent=agent), rows)
    torch.testing.assert_close(square, right.square())


def test_a_net_learns_the_moves_without_a_step_of_the_world():
    moves, agent = corridor()

    class Task:
        spaces = Spaces(1, n_actions=3)

    recipe = p_learning_net((0.0,), (1.0,), 0.8, lr=5e-3, steps=250, batch=256, hidden=(32, 32))
    trained = sp.train(recipe, task=Task(), steps=250, seed=0, agent=agent, compile=False)
    g = torch.Generator().manual_seed(1)
    x, a = torch.rand(500, 1, generator=g), torch.randint(3, (500,), generator=g)
    with torch.no_grad():
        error = (trained.nets.model(x, a) - moves(x, a)).abs().mean()
    standing = (x - moves(x, a)).abs().mean()
    assert float(error) < 0.15 * float(standing)
    assert torch.equal(trained.nets.agent.q, agent.q)
    with pytest.raises(InputError, match="handed in as 'agent'"):
        sp.train(recipe, task=Task(), steps=1, compile=False)


def test_a_model_begins_nearly_at_rest_and_stays_in_its_box():
    torch.manual_seed(0)
    spaces = Spaces(2, n_actions=3)
    net = residual((-1.0, 0.0), (1.0, 0.1), (8,))(spaces)
    x = torch.tensor([[-1.0, 0.0], [0.5, 0.05]])
    assert (net(x, torch.tensor([0, 2])) - x).abs().max() < 0.03
    with torch.no_grad():
        net.net[-1].bias.fill_(9.0)
    assert torch.equal(net(x, torch.tensor([0, 2])), torch.tensor([[1.0, 0.1], [1.0, 0.1]]))
    with pytest.raises(InputError, match="a box of 2 numbers"):
        residual((0.0,), (1.0,))(spaces)


def test_a_box_gives_even_states_and_actions():
    spaces = Spaces(2, n_actions=3)
    stream = open_stream(box((-1.0, 2.0), (1.0, 4.0), 4000), {}, spaces)
    torch.manual_seed(0)
    rows = stream.sample(stream.tables)
    assert rows.obs.mean(0).tolist() == pytest.approx([0.0, 3.0], abs=0.05)
    assert rows.obs.amin(0).tolist() == pytest.approx([-1.0, 2.0], abs=0.01)
    assert torch.bincount(rows.action).tolist() == pytest.approx([4000 / 3] * 3, rel=0.08)
    with pytest.raises(InputError, match="low below high"):
        open_stream(box((0.0, 1.0), (1.0, 1.0)), {}, spaces)
